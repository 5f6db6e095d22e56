package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// link is what the engine adds to containerd's client: quick reconnects, a bound on every call, and
// errors that name the address.
type link struct {
	address string
	timeout time.Duration
	// connects counts connections. What was learnt about tasks over an earlier one may be out of
	// date: containerd can have been restarted in between.
	connects atomic.Uint64

	mu sync.Mutex
	// bound is containerd's own name of its socket, which differs from address where that has a
	// symlink in it. Guarded by mu.
	bound string
}

func newLink(address string, timeout time.Duration) *link {
	return &link{address: address, timeout: timeout, bound: address}
}

// boundAddress is the address as containerd was told it; address until the first connection.
func (l *link) boundAddress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bound
}

func (l *link) dialOptions() []grpc.DialOption {
	// The client's own dialer retries for ten seconds while the socket does not exist, and its
	// back-off reaches ten seconds: too long beside a restart of containerd.
	params := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
	return []grpc.DialOption{
		grpc.WithConnectParams(params),
		grpc.WithContextDialer(l.dial),
		grpc.WithChainUnaryInterceptor(l.unary),
		grpc.WithChainStreamInterceptor(l.stream),
	}
}

func (l *link) dial(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", l.address)
	if err != nil {
		return nil, err
	}
	l.connects.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if name := conn.RemoteAddr().String(); name != "" {
		l.bound = name
	}
	return conn, nil
}

func (l *link) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	bound := callBound(method, l.timeout)
	if bound == 0 {
		return l.explain(invoke(ctx, method, req, reply, cc, opts...))
	}
	inner, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	err := invoke(inner, method, req, reply, cc, opts...)
	// containerd knows the bound too, and can be the first to say that it is over.
	over := inner.Err() != nil || errors.Is(errgrpc.ToNative(err), context.DeadlineExceeded)
	if err != nil && over && ctx.Err() == nil {
		return errgrpc.ToGRPC(fmt.Errorf("containerd at %s did not answer %s within %v: %w",
			l.address, method, bound, errdefs.ErrUnavailable))
	}
	return l.explain(err)
}

func (l *link) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, l.explain(err)
	}
	return s, nil
}

// explain adds the address to the error of a broken connection.
func (l *link) explain(err error) error {
	if err == nil {
		return nil
	}
	native := errgrpc.ToNative(err)
	if !errdefs.IsUnavailable(native) {
		return err
	}
	return errgrpc.ToGRPC(fmt.Errorf("containerd at %s: %w", l.address, native))
}

// longCall bounds calls that remove files, and may have many to remove.
const longCall = 10 * time.Minute

// dumpCall bounds writing the memory of a container to disk.
const dumpCall = time.Hour

// callBound returns how long a call may take, and zero for no bound: Wait ends with a process, and
// applying a layer takes as long as the layer is big.
func callBound(method string, usual time.Duration) time.Duration {
	switch method[strings.LastIndexByte(method, '.')+1:] {
	case "Tasks/Wait", "Diff/Apply", "Diff/Diff":
		return 0
	case "Images/Delete", "Leases/Delete", "Snapshots/Commit", "Snapshots/Remove", "Snapshots/Cleanup", "Snapshots/Usage":
		return max(longCall, usual)
	case "Tasks/Checkpoint":
		return max(dumpCall, usual)
	}
	return usual
}
