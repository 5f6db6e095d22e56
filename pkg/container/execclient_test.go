package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/stream"
)

// startingExecs tells of a start only when the client that saw the command's first output has left.
type startingExecs struct {
	*fakeEngine
	leave         context.CancelCauseFunc
	killed, ended bool
}

func (s *startingExecs) StartExec(ctx context.Context, req ExecRequest) (uint32, error) {
	out, err := os.OpenFile(req.Stdio.Stdout, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	s.leave(stream.ErrClientGone)
	return 43, errors.Join(context.Cause(ctx), out.Close())
}

func (s *startingExecs) KillExec(context.Context, string, string, uint32) error {
	s.killed = true
	return nil
}

func (s *startingExecs) DeleteExec(context.Context, string, string) error {
	s.ended = true
	return nil
}

// TestExecWhoseClientLeavesWhileItStarts: what the command writes reaches the client before containerd's
// answer, so a client can leave in between.
func TestExecWhoseClientLeavesWhileItStarts(t *testing.T) {
	n := newNode(t)
	client, leave := context.WithCancelCause(t.Context())
	execs := &startingExecs{fakeEngine: n.engine, leave: leave}
	n.opts.Execs = execs
	n.restart(t)
	id := n.mustStart(t, "a")
	code, err := n.Exec(client, id, []string{"sh"}, stream.Streams{Stdout: nopWriter{}})
	if err != nil || code != 0 {
		t.Errorf("the command ends with %d, %v; want it to go on without its client", code, err)
	}
	if execs.killed || !execs.ended {
		t.Errorf("the exec was killed: %t, deleted: %t; want it deleted after its end alone", execs.killed, execs.ended)
	}
}

// slowExecs does not start a command in time.
type slowExecs struct{ *fakeEngine }

func (slowExecs) StartExec(ctx context.Context, _ ExecRequest) (uint32, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestExecSyncWhoseTimeIsOverBeforeTheCommandStarts: on a busy node that is a timeout as any other.
func TestExecSyncWhoseTimeIsOverBeforeTheCommandStarts(t *testing.T) {
	n := newNode(t)
	n.opts.Execs = slowExecs{n.engine}
	n.restart(t)
	_, err := n.ExecSync(t.Context(), n.mustStart(t, "a"), []string{"sh"}, 10*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "command timed out after 10ms") {
		t.Errorf("%v, want that the time of 10 ms is over", err)
	}
}

type nopWriter struct{}

func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }
func (nopWriter) Close() error                { return nil }
