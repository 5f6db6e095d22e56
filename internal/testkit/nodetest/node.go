package nodetest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
)

// patience is how long the leak check waits for what goes away by itself: a shim after its last task, a
// snapshot that containerd's garbage collection removes.
const patience = 10 * time.Second

// callTimeout bounds one CRI call of a test.
const callTimeout = 60 * time.Second

// Node is a lab node with CRI clients. Its methods that take a testing.TB fail that test.
type Node struct {
	*labnode.Node
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	Engine  *grpc.ClientConn // to containerd
	// Ranges lists the id ranges in use, for the leak check; nil leaves them out.
	Ranges func(ctx context.Context) ([]string, error)

	cri      *grpc.ClientConn
	baseline leaks.Inventory
	box      labimage.Box

	mu     sync.Mutex
	pulled map[string]string // image reference by name
}

// New starts a node. It is for TestMain; a test uses Start.
func New(ctx context.Context, opts labnode.Options) (*Node, error) {
	node, err := labnode.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	n := &Node{Node: node, pulled: map[string]string{}}
	if err := n.connect(ctx); err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	return n, nil
}

func (n *Node) connect(ctx context.Context) error {
	var err error
	if n.box, err = labimage.FindBox(ctx); err != nil {
		return err
	}
	if n.cri, err = n.Daemon.Dial(); err != nil {
		return fmt.Errorf("dial CRI socket: %w", err)
	}
	n.Runtime = runtimeapi.NewRuntimeServiceClient(n.cri)
	n.Images = runtimeapi.NewImageServiceClient(n.cri)
	if n.Engine, err = n.Containerd.Dial(); err != nil {
		return fmt.Errorf("dial containerd: %w", err)
	}
	if n.baseline, err = n.scope().Take(ctx); err != nil {
		return err
	}
	return nil
}

// Start starts a node for one test. When the test ends the node must hold nothing any more, and is removed.
func Start(t testing.TB, opts labnode.Options) *Node {
	t.Helper()
	if opts.Tools == "" {
		opts.Tools = Tools(t)
	}
	n, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Errorf("close node: %v", err)
		}
	})
	n.ShowLogs(t)
	n.WantNoLeaks(t)
	return n
}

// Close ends the node.
func (n *Node) Close(ctx context.Context) error {
	var errs []error
	for _, conn := range []*grpc.ClientConn{n.cri, n.Engine} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(append(errs, n.Node.Close(ctx))...)
}

func (n *Node) scope() leaks.Scope {
	scope := n.LeakScope()
	scope.Containerd = n.Engine
	scope.Ranges = n.Ranges
	return scope
}

// WantNoLeaks makes the test fail when it ends and its pods, which cleanups registered later remove first,
// have left anything behind. The daemons must run by then.
func (n *Node) WantNoLeaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		found, err := n.Leaks(ctx, patience)
		if err != nil {
			t.Errorf("check for leaks: %v", err)
		}
		for _, thing := range found {
			t.Errorf("left behind: %s", thing)
		}
	})
}

// Leaks lists what the node holds beyond what it had when it was started, pods that CRI lists included. It
// waits up to patience for what goes away by itself.
func (n *Node) Leaks(ctx context.Context, patience time.Duration) ([]leaks.Thing, error) {
	found, err := n.scope().Check(ctx, n.baseline, patience)
	if err != nil {
		return nil, err
	}
	pods, err := n.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, pod := range pods.Items {
		found = append(found, leaks.Thing{Kind: "CRI sandbox", Name: pod.Metadata.Name + " " + pod.Id})
	}
	containers, err := n.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers.Containers {
		found = append(found, leaks.Thing{Kind: "CRI container", Name: c.Metadata.Name + " " + c.Id})
	}
	return found, nil
}

// ShowLogs shows what the daemons have logged from now on when the test ends and has failed.
func (n *Node) ShowLogs(t testing.TB) {
	t.Helper()
	showLog(t, "containerd", n.Containerd.Log)
	showLog(t, "userns-shim", n.Daemon.Log)
}

// Image makes an image of the catalogue present on the node and returns its reference.
func (n *Node) Image(t testing.TB, name string) string {
	t.Helper()
	if ref, ok := n.Pulled(name); ok {
		return ref
	}
	if specs, ok := labimage.Indexes(n.box)[name]; ok {
		index, err := labimage.BuildIndex(specs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Registry.PushIndex(t.Context(), name, index); err != nil {
			t.Fatal(err)
		}
		return n.pull(t, name)
	}
	spec, ok := labimage.Catalogue(n.box)[name]
	if !ok {
		t.Fatalf("the catalogue has no image %s", name)
	}
	return n.ImageOf(t, name, spec)
}

// Box is the program that the catalogue's images are made of.
func (n *Node) Box() labimage.Box { return n.box }

// ImageOf builds an image, makes it present on the node under name ("x:latest") and returns its reference.
func (n *Node) ImageOf(t testing.TB, name string, spec labimage.Spec) string {
	t.Helper()
	n.PushImage(t, name, spec)
	return n.pull(t, name)
}

// PushImage builds an image and only puts it into the registry. It returns the manifest's digest.
func (n *Node) PushImage(t testing.TB, name string, spec labimage.Spec) string {
	t.Helper()
	img, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := n.Registry.Push(t.Context(), name, img)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (n *Node) pull(t testing.TB, name string) string {
	t.Helper()
	ref := n.Registry.Ref(name)
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if _, err := n.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pulled[name] = ref
	return ref
}

// Pulled returns the reference of an image that Image or ImageOf has made present before.
func (n *Node) Pulled(name string) (ref string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ref, ok = n.pulled[name]
	return ref, ok
}

// logDir is the directory of one pod's container logs, as kubelet would choose it.
func (n *Node) logDir(uid string) string { return filepath.Join(n.Dir, "logs", uid) }

// podName turns a test's name into one that Kubernetes allows.
func podName(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return strings.Trim(name[max(0, len(name)-40):], "-")
}
