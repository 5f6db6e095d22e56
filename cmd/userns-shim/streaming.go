package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stream"
)

// streamRuntime carries out what streaming clients ask for.
type streamRuntime struct {
	containers *container.Manager
	sandboxes  *sandbox.Manager
}

var _ stream.Runtime = streamRuntime{}

func (r streamRuntime) Exec(ctx context.Context, containerID string, cmd []string, s stream.Streams) (int, error) {
	code, err := r.containers.Exec(ctx, containerID, cmd, s)
	return int(code), err
}

func (r streamRuntime) Attach(ctx context.Context, containerID string, s stream.Streams) error {
	return r.containers.Attach(ctx, containerID, s)
}

func (r streamRuntime) PortForward(ctx context.Context, sandboxID string, port uint16, client io.ReadWriteCloser) error {
	rec, err := r.sandboxes.Get(sandboxID)
	if err != nil {
		return err
	}
	if rec.Phase != sandbox.PhaseReady {
		return fmt.Errorf("forward port %d: sandbox %s: %w", port, rec.ID, sandbox.ErrNotReady)
	}
	return stream.ForwardPort(ctx, rec.Pins.Network, port, client)
}

// streamCloseTimeout bounds how long sessions that are cut off may take to end.
const streamCloseTimeout = 10 * time.Second

// openStreaming starts the server that clients are sent to.
func (d *daemon) openStreaming(ctx context.Context) error {
	server, err := stream.NewServer(ctx, stream.ServerOptions{
		Address:     d.cfg.Streaming.Listen,
		Runtime:     streamRuntime{containers: d.containers, sandboxes: d.sandboxes},
		IdleTimeout: time.Duration(d.cfg.Streaming.IdleTimeout),
	})
	if err != nil {
		return err
	}
	d.streaming = server
	d.closers = append(d.closers, closerFunc(func() error {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), streamCloseTimeout)
		defer cancel()
		return server.Close(clean)
	}))
	return nil
}
