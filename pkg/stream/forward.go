package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netns"
)

// dialTimeout bounds a connect within a pod, where packets may be dropped.
const dialTimeout = 10 * time.Second

// ForwardPort connects client to a TCP port of a pod's loopback, IPv4 first, then IPv6,
// until both have finished sending, one of them breaks, or ctx ends. netnsPath is the
// pod's network namespace; empty means the host's, for pods that share it. It closes
// client.
func ForwardPort(ctx context.Context, netnsPath string, port uint16, client io.ReadWriteCloser) error {
	pod, err := dialPod(ctx, netnsPath, port)
	if err != nil {
		_ = client.Close()
		return err
	}
	f := &splice{client: client, pod: pod, linger: lingerTime, probe: probeTime}
	if err := f.run(ctx); err != nil {
		return fmt.Errorf("forward port %d: %w", port, err)
	}
	return nil
}

func dialPod(ctx context.Context, netnsPath string, port uint16) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if netnsPath == "" {
		return dialLoopback(ctx, port)
	}
	type dialed struct {
		conn *net.TCPConn
		err  error
	}
	done := make(chan dialed)
	go func() { // its thread may have to be thrown away
		conn, err := dialInNetns(ctx, netnsPath, port)
		done <- dialed{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}

// dialInNetns dials on a thread that is in the network namespace. A socket stays in
// the namespace of the thread that made it. A thread that cannot go back stays locked,
// so that the runtime ends it with the goroutine.
func dialInNetns(ctx context.Context, path string, port uint16) (*net.TCPConn, error) {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("own network namespace: %w", err)
	}
	defer own.Close()
	target, err := netns.GetFromPath(path)
	if err == nil {
		err = netns.Set(target)
		_ = target.Close()
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	conn, err := dialLoopback(ctx, port)
	if netns.Set(own) == nil {
		runtime.UnlockOSThread()
	}
	return conn, err
}

// dialLoopback dials addresses, not the name localhost: the resolver would read the
// host's files, and net would dial both families on threads of their own.
func dialLoopback(ctx context.Context, port uint16) (*net.TCPConn, error) {
	var errs []error
	for _, ip := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", netip.AddrPortFrom(ip, port).String())
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to port %d of the pod: %w", port, errors.Join(errs...))
}
