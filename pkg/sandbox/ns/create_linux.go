package ns

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Create makes the namespaces that req asks for and pins them. On an error nothing of them is
// left. A pin that exists already is an error wrapping fs.ErrExist, and is left alone: it may
// be alive. When ctx ends, so does the attempt.
func Create(ctx context.Context, req Request) (Pins, error) {
	if err := req.validate(); err != nil {
		return Pins{}, err
	}
	pins := req.pins()
	if pins == (Pins{}) {
		return pins, nil
	}
	if err := ctx.Err(); err != nil {
		return Pins{}, fmt.Errorf("create namespaces: %w", context.Cause(ctx))
	}
	if err := makePinFiles(req, pins); err != nil {
		return Pins{}, err
	}
	var err error
	onThrowawayThread(func() { err = build(ctx, req, pins) })
	if err != nil {
		clean := context.WithoutCancel(ctx) // a few system calls; nothing to bound
		return Pins{}, errors.Join(err, Remove(clean, req.Dir, pins.Network))
	}
	klog.FromContext(ctx).V(4).Info("Namespaces created", "user", pins.User, "network", pins.Network, "ipc", pins.IPC, "uts", pins.UTS)
	return pins, nil
}

// build runs on a thread of its own, which may end inside the pod's namespaces. The child is gone
// when it returns.
func build(ctx context.Context, req Request, pins Pins) (err error) {
	c, err := startChild()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.setUp(ctx, req); err != nil {
		return err
	}
	if req.User != nil {
		if err := c.writeMaps(*req.User); err != nil {
			return err
		}
	}
	if err := c.configure(ctx, req, pins); err != nil {
		return err
	}
	return c.pin(pins)
}

// configure writes the pod's sysctls. Whom the kernel lets write one differs: those of an IPC
// namespace only the root of its user namespace since 6.10 and only the host's root before,
// kernel.domainname only the host's root. So the child, which is the pod's root, tries first, and
// this thread where it may not.
func (c *child) configure(ctx context.Context, req Request, pins Pins) error {
	joined := false
	for _, s := range sortedSysctls(req.Sysctls) {
		errno, err := c.writeSysctl(ctx, s)
		switch {
		case err != nil:
			return err
		case errno == 0:
			continue
		case errno != unix.EACCES && errno != unix.EPERM:
			return s.writeError(errno)
		}
		if !joined {
			if err := unix.Setns(c.pidfd, joinFlags(pins)); err != nil {
				return fmt.Errorf("enter namespaces of child %d: %w", c.pid, err)
			}
			joined = true
		}
		if err := s.write(req.User); err != nil {
			return err
		}
	}
	return nil
}

// joinFlags are the CLONE_NEW* flags of what a thread of this process can enter.
func joinFlags(pins Pins) int {
	flags := 0
	for _, k := range kinds {
		if k.flag != unix.CLONE_NEWUSER && k.path(pins) != "" {
			flags |= int(k.flag)
		}
	}
	return flags
}
