package ns

import (
	"context"
	"errors"
	"fmt"
	"os"

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

// build runs on a thread of its own, which it leaves inside the pod's namespaces. The child is
// gone when it returns.
func build(ctx context.Context, req Request, pins Pins) (err error) {
	var flags []uintptr
	join := 0
	for _, k := range kinds {
		if k.path(pins) == "" {
			continue
		}
		flags = append(flags, k.flag)
		if k.flag != unix.CLONE_NEWUSER {
			join |= int(k.flag)
		}
	}
	c, err := startChild(ctx, req.User, flags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if req.User != nil {
		if err := c.writeMaps(*req.User); err != nil {
			return err
		}
	}
	if req.Hostname != "" || len(req.Sysctls) > 0 {
		// With the host's credentials: from inside the user namespace some sysctls are EACCES.
		if err := unix.Setns(c.pidfd, join); err != nil {
			return fmt.Errorf("enter namespaces of child %d: %w", c.pid, err)
		}
		if err := configure(req); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		if path := k.path(pins); path != "" {
			if err := unix.Mount(c.proc("ns/"+k.proc), path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("pin %s namespace at %s: %w", k.name, path, err)
			}
		}
	}
	return nil
}

// writeMaps gives the child's user namespace its ids. Its setgroups stays "allow": the writer
// has CAP_SETGID over the parent namespace, so the kernel does not ask for "deny".
func (c *child) writeMaps(m IDMap) error {
	line := fmt.Appendf(nil, "0 %d %d\n", m.HostID, m.Length)
	for _, name := range []string{"uid_map", "gid_map"} {
		f, err := os.OpenFile(c.proc(name), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("map ids: %w", err)
		}
		_, err = f.Write(line) // the kernel takes a map in one write, once
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("map %d ids from host id %d on: %w", m.Length, m.HostID, err)
		}
	}
	return nil
}

// configure sets what lives in the namespaces that this thread has entered.
func configure(req Request) error {
	if req.Hostname != "" {
		if err := unix.Sethostname([]byte(req.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", req.Hostname, err)
		}
	}
	return writeSysctls(req.Sysctls, req.User)
}
