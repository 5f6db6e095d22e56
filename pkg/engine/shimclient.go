package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"k8s.io/klog/v2"
)

// shimTimeout bounds one call to a shim, which is on this machine and has one container to look after.
const shimTimeout = 10 * time.Second

// shimAnswer bounds the wait for the first answer, after which a shim is taken to wait for a reader of its log.
const shimAnswer = 500 * time.Millisecond

// shimClient is a connection to a shim past containerd, for tasks that containerd does not know. Others are
// containerd's alone.
type shimClient struct {
	namespace string
	client    *ttrpc.Client
	tasks     taskapi.TTRPCTaskService
	logs      []io.Closer // read ends that let the shim go on
}

// dialShim returns nil where no shim of the group listens.
func (e *Engine) dialShim(ctx context.Context, group string) (*shimClient, error) {
	socket, err := e.shimListener(group)
	if err != nil || socket.path == "" {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket.path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has just ended
	}
	if err != nil {
		return nil, fmt.Errorf("connect to shim of group %s: %w", group, err)
	}
	client := ttrpc.NewClient(conn)
	shim := &shimClient{namespace: e.opts.Namespace, client: client, tasks: taskapi.NewTTRPCTaskClient(client)}
	if !shim.answers(ctx) {
		klog.FromContext(ctx).Info("Shim listens and does not answer: reading its log, for which it may wait", "group", group)
		shim.logs = readShimLog(socket.inode)
	}
	return shim, nil
}

func (s *shimClient) close() error {
	err := s.client.Close()
	for _, log := range s.logs {
		err = errors.Join(err, log.Close())
	}
	return err
}

// answers says whether the shim answers at all, be it with an error.
func (s *shimClient) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, shimAnswer)
	defer cancel()
	_, _ = s.tasks.State(ctx, &taskapi.StateRequest{})
	return ctx.Err() == nil
}

// bounded is the context of one call.
func (s *shimClient) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"containerd-namespace-ttrpc": []string{s.namespace}})
	return context.WithTimeout(ctx, shimTimeout)
}

// deleteTask kills and deletes a task. One that the shim does not know is done.
func (s *shimClient) deleteTask(ctx context.Context, id string) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	state, err := s.tasks.State(ctx, &taskapi.StateRequest{ID: id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of task %s in its shim: %w", id, err)
	}
	// The shim lets the OCI runtime write its log into the bundle, which containerd has removed.
	if err := os.Mkdir(state.GetBundle(), 0o700); err == nil {
		defer func() { _ = removeState(state.GetBundle()) }() // containerd removes it at its next start
	}
	return errors.Join(s.killTask(ctx, id), s.forgetTask(ctx, id))
}

// killTask returns when the task has ended, which it may have before.
func (s *shimClient) killTask(ctx context.Context, id string) error {
	_, err := s.tasks.Kill(ctx, &taskapi.KillRequest{ID: id, Signal: uint32(syscall.SIGKILL), All: true})
	if err = errgrpc.ToNative(err); err == nil {
		_, err = s.tasks.Wait(ctx, &taskapi.WaitRequest{ID: id})
		err = errgrpc.ToNative(err)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("kill task %s in its shim: %w", id, err)
	}
	return nil
}

func (s *shimClient) forgetTask(ctx context.Context, id string) error {
	_, err := s.tasks.Delete(ctx, &taskapi.DeleteRequest{ID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s in its shim: %w", id, err)
	}
	return nil
}

// shutDown ends a shim that has no task.
func (s *shimClient) shutDown(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.tasks.Shutdown(ctx, &taskapi.ShutdownRequest{})
	// It may hang up before it has answered.
	if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		return fmt.Errorf("shut down shim: %w", errgrpc.ToNative(err))
	}
	return nil
}
