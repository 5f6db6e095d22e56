package stream

import (
	"context"
	"errors"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
)

// outlet is where one output stream of a container goes: first into the log, then to
// the attached clients.
type outlet struct {
	log     *crilog.Writer // nil: no log
	clients *broadcast
}

func (c *ContainerIO) newOutlet(name crilog.Stream, stall time.Duration) *outlet {
	o := &outlet{clients: newBroadcast(stall)}
	if c.log != nil {
		o.log = c.log.Writer(name)
	}
	return o
}

func (o *outlet) write(ctx context.Context, p []byte) {
	if o.log != nil {
		o.report(ctx, o.log.Write(ctx, p))
	}
	o.clients.write(p)
}

func (o *outlet) end(ctx context.Context) {
	if o.log != nil {
		o.report(ctx, o.log.Flush(ctx))
	}
	o.clients.end()
}

// report logs an error of the log file. The container's output goes on being read:
// a log that cannot be written must not stop a container.
func (o *outlet) report(ctx context.Context, err error) {
	if err != nil && !errors.Is(err, crilog.ErrClosed) {
		klog.FromContext(ctx).Error(err, "Container output is not logged")
	}
}
