package foreign

import (
	"context"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
)

// confirmAfter is the time after which a process has to use its ids still. The helper that makes a pod's namespaces has the pod's
// ids for some milliseconds before it is in one.
const confirmAfter = 250 * time.Millisecond

// looker is what a source does with the processes that it is shown.
type looker interface {
	// learnPins notes the pods' own namespaces, as they are now.
	learnPins() error
	// process notes what a process has that nobody but a pod should have.
	process(pid int) error
	noted() bool
	// confirm tells of what is there still, and is no pod's.
	confirm(ctx context.Context, f *found) error
}

// lookTwice looks at all processes of proc and, a while later, at what was noted then. Pods that came
// meanwhile have their pins by then, and those that went have left nothing.
func lookTwice(ctx context.Context, proc string, l looker, f *found) error {
	if err := l.learnPins(); err != nil {
		return err
	}
	err := hostids.ForEachProcess(proc, func(pid int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return l.process(pid)
	})
	if err != nil || !l.noted() {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(confirmAfter):
	}
	if err := l.learnPins(); err != nil {
		return err
	}
	return l.confirm(ctx, f)
}
