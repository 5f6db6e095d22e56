package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestCallBound(t *testing.T) {
	for method, want := range map[string]time.Duration{
		"/containerd.services.tasks.v1.Tasks/Wait":       0,
		"/containerd.services.diff.v1.Diff/Apply":        0,
		"/containerd.services.images.v1.Images/Delete":   longCall,
		"/containerd.services.tasks.v1.Tasks/Create":     time.Minute,
		"/containerd.services.version.v1.Version/Info":   time.Minute,
		"/containerd.services.images.v1.Images/DeleteIt": time.Minute,
	} {
		if got := callBound(method, time.Minute); got != want {
			t.Errorf("bound of %s is %v, want %v", method, got, want)
		}
	}
}

// fakeContainerd answers Version, and hangs while it is told to.
type fakeContainerd struct {
	versionapi.UnimplementedVersionServer
	hang chan struct{}
}

func (f *fakeContainerd) Version(ctx context.Context, _ *emptypb.Empty) (*versionapi.VersionResponse, error) {
	select {
	case <-f.hang:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &versionapi.VersionResponse{Version: "v0"}, nil
}

func serve(t *testing.T, address string, f *fakeContainerd) *grpc.Server {
	t.Helper()
	listener, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	versionapi.RegisterVersionServer(server, f)
	go func() { _ = server.Serve(listener) }()
	return server
}

// TestHungContainerd: a call that is not answered ends, as unavailable; and a containerd that comes back
// is soon found again, at a path with a symlink in it too.
func TestHungContainerd(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	real, linked := filepath.Join(dir, "c.sock"), filepath.Join(dir, "link", "c.sock")
	f := &fakeContainerd{hang: make(chan struct{})}
	server := serve(t, real, f)
	e, err := New(Options{Address: linked, Namespace: "k8s.io", CallTimeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Version(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), linked) {
		t.Errorf("version of a containerd that hangs: %v, want unavailable", err)
	}
	if got := e.link.boundAddress(); got != real {
		t.Errorf("containerd's own address is %s, want %s", got, real)
	}
	close(f.hang)
	awaitVersion(t, e)
	server.Stop()
	if _, err := e.Version(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("version of a stopped containerd: %v, want unavailable", err)
	}
	server = serve(t, real, f)
	defer server.Stop()
	awaitVersion(t, e)
	if got := e.link.connects.Load(); got != 2 {
		t.Errorf("%d connections were counted, want 2", got)
	}
}

// awaitVersion asks until there is an answer in the time of one call, which is short here.
func awaitVersion(t *testing.T, e *Engine) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		v, err := e.Version(t.Context())
		if err == nil && v == "v0" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the engine does not find containerd: version %q, %v", v, err)
		}
	}
}

// TestContainerdSaysThatTimeIsOver: it knows a call's bound too, and may be the first to end the call.
func TestContainerdSaysThatTimeIsOver(t *testing.T) {
	e, err := New(Options{Address: filepath.Join(t.TempDir(), "c.sock"), Namespace: "k8s.io", CallTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	over := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		return status.FromContextError(context.DeadlineExceeded).Err()
	}
	const method = "/containerd.services.version.v1.Version/Version"
	if err := errgrpc.ToNative(e.link.unary(t.Context(), method, nil, nil, nil, over)); !errdefs.IsUnavailable(err) {
		t.Errorf("an unanswered call: %v, want unavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := errgrpc.ToNative(e.link.unary(ctx, method, nil, nil, nil, over)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call whose caller's time is over: %v, want deadline exceeded", err)
	}
}
