package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/network"
)

const (
	// recoverRetry is the pause before containerd is asked again at the start.
	recoverRetry = time.Second
	// recoverFirst is how long the sockets wait for recovery, which then goes on beside them: a
	// pod that takes long must not keep kubelet from seeing why the node is not ready.
	recoverFirst = 5 * time.Second
)

// errRecovering is why most calls are refused at first.
var errRecovering = errors.New("pods of the last run are being looked at")

// run serves until ctx ends, and closes the daemon. It recovers first what an earlier run left;
// while that goes on, only the calls that tell of the node are served.
func (d *daemon) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	d.node.recovery.wait(errRecovering)
	group, ctx := errgroup.WithContext(ctx)
	recovered := make(chan struct{})
	group.Go(func() error {
		d.awaitRecovery(ctx)
		close(recovered)
		d.strays().run(ctx)
		return nil
	})
	select {
	case <-recovered:
	case <-time.After(recoverFirst):
	}
	group.Go(func() error { return d.serve(ctx, group) })
	return group.Wait()
}

// serve opens the sockets and answers on them, in goroutines of group, until ctx ends.
func (d *daemon) serve(ctx context.Context, group *errgroup.Group) error {
	listener, err := listenUnix(strings.TrimPrefix(d.cfg.Listen, "unix://"), criSocketMode)
	if err != nil {
		return err
	}
	adminListener, err := listenUnix(admin.SocketPath(d.cfg.State), adminSocketMode)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	metricsListener, err := d.listenMetrics()
	if err != nil {
		return errors.Join(err, listener.Close(), adminListener.Close())
	}
	group.Go(func() error {
		view := d.poolView()
		return admin.Serve(ctx, adminListener, view, poolChecker{
			view: view, scanner: d.scanner, limited: limitsKubelet(d.pool.Extents(idpool.SegmentKubelet)),
		})
	})
	for _, work := range []func(context.Context){
		poolKeeper{db: d.db, pool: d.pool, witness: d.witness}.run,
		d.reconcileAgain,
		forecaster{pool: d.pool, tracker: d.tracker}.run,
		d.serveNames,
		d.scanForeign,
	} {
		group.Go(func() error {
			work(ctx)
			return nil
		})
	}
	if metricsListener != nil {
		group.Go(func() error {
			return d.metrics.Serve(ctx, metricsListener, map[string]http.Handler{"/statusz": d.statusPage()})
		})
	}
	group.Go(func() error {
		err := d.engine.WatchOOM(ctx, d.containers.NoteOOM)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	klog.FromContext(ctx).Info("Serving CRI", "address", d.cfg.Listen)
	return d.serveCRI(ctx, listener)
}

func (d *daemon) serveCRI(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(cri.Interceptors{
		Logger: klog.FromContext(ctx),
		Observe: func(method string, code codes.Code, took time.Duration) {
			d.metrics.ObserveRequest(method, code.String(), took)
		},
		Ready: d.node.recovery.pending,
	}.ServerOptions()...)
	cri.Register(server, d.services)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		d.events.Close()
		stopGracefully(server)
	})
	// The listener queues connections already.
	if err := d.systemd.Ready(); err != nil {
		klog.FromContext(ctx).Error(err, "systemd may take the start for failed")
	}
	err := server.Serve(listener)
	if !stop() {
		<-stopped
	}
	return err
}

// stopGrace is how long calls that are under way may take to end.
const stopGrace = 10 * time.Second

func stopGracefully(server *grpc.Server) {
	timer := time.AfterFunc(stopGrace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// recover reconciles the records with the node, sandboxes first. Its error says that containerd
// does not answer; what cannot be recovered otherwise is logged, and left to its removal.
func (d *daemon) recover(ctx context.Context) error {
	sandboxes := d.sandboxes.Interrupted()
	if err := errors.Join(network.Settle(ctx, sandboxes), d.engine.Settle(ctx, append(sandboxes, d.containers.Interrupted()...))); err != nil {
		klog.FromContext(ctx).Error(err, "What the last run began is still under way")
	}
	if err := d.strays().note(slices.Concat(d.sandboxes.InterruptedGroups(), d.containers.InterruptedGroups())); err != nil {
		return err
	}
	err := errors.Join(d.sandboxes.Recover(ctx), d.containers.Recover(ctx))
	if errors.Is(err, errdefs.ErrUnavailable) {
		return err
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Recovery of pods")
	}
	return nil
}

func (d *daemon) strays() strays { return strays{db: d.db, tasks: d.engine, now: time.Now} }

// awaitRecovery tries until containerd has answered once.
func (d *daemon) awaitRecovery(ctx context.Context) {
	ticker := time.NewTicker(recoverRetry)
	defer ticker.Stop()
	for {
		err := d.recover(ctx)
		if err == nil {
			d.reconcileFirst(ctx)
			d.startPlugins(ctx)
			d.node.recovery.done()
			debug.FreeOSMemory() // reading and comparing the records took several times what they take
			return
		}
		d.node.recovery.wait(err)
		klog.FromContext(ctx).Info("Waiting for containerd", "address", d.cfg.Containerd.Address)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// listenMetrics returns nil where the configuration turns metrics off.
func (d *daemon) listenMetrics() (net.Listener, error) {
	if d.cfg.MetricsListen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", d.cfg.MetricsListen)
	if err != nil {
		return nil, fmt.Errorf("listen for scrapes: %w; metricsListen names another address, or none when empty", err)
	}
	return listener, nil
}

// The sockets' modes: CRI is root's and its group's, as on other runtimes.
const (
	criSocketMode   = 0o660
	adminSocketMode = 0o600
)

// listenUnix takes over a socket that nobody serves any more.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: another process serves it", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}
