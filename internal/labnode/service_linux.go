package labnode

import (
	"context"
	"errors"
)

// service is one of the daemons of a node, which can be started again on the same directories.
type service struct {
	proc *process // of the last start
}

// launch starts the daemon and waits until ready returns nil.
func (s *service) launch(ctx context.Context, world *World, c command, ready func(context.Context) error) error {
	proc, err := startProcess(world, c)
	if err != nil {
		return err
	}
	s.proc = proc
	if err := proc.await(ctx, ready); err != nil {
		return errors.Join(err, proc.kill())
	}
	return nil
}

// PID is the daemon's process id.
func (s *service) PID() int { return s.proc.pid() }

// Running tells whether the daemon's process lives.
func (s *service) Running() bool { return s.proc.running() }

// Stop ends the daemon with SIGTERM; pods, their shims and containers go on running.
func (s *service) Stop(ctx context.Context) error { return s.proc.stop(ctx) }

// Kill9 ends the daemon with SIGKILL; pods, their shims and containers go on running.
func (s *service) Kill9() error { return s.proc.kill() }
