package mounts

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// fsContext is a filesystem in the making (fsopen, 5.2). Options are given one by one, so that there is no
// limit on their sum, and 255 bytes for each value.
type fsContext struct {
	file   fd
	fsType string
}

func openFS(fsType string) (*fsContext, error) {
	f, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open filesystem type %q: %w", fsType, err)
	}
	return &fsContext{file: fd(f), fsType: fsType}, nil
}

func (c *fsContext) close() { c.file.close() }

// set sets one option.
func (c *fsContext) set(o param) error {
	var err error
	if o.flag {
		err = unix.FsconfigSetFlag(int(c.file), o.key)
	} else {
		err = unix.FsconfigSetString(int(c.file), o.key, o.unquoted())
	}
	if err != nil {
		return c.explain(fmt.Sprintf("set option %q", o), err)
	}
	return nil
}

// setDir sets an option that takes a directory.
func (c *fsContext) setDir(key string, dir fd) error {
	if err := unix.FsconfigSetFd(int(c.file), key, int(dir)); err != nil {
		return c.explain("set option "+key, err)
	}
	return nil
}

// mount makes the filesystem and returns it as a detached mount.
func (c *fsContext) mount(attrs uint64) (fd, error) {
	if err := unix.FsconfigCreate(int(c.file)); err != nil {
		return noFD, c.explain("create", err)
	}
	f, err := unix.Fsmount(int(c.file), unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return noFD, c.explain("mount", err)
	}
	return fd(f), nil
}

// explain adds what the kernel has to say, which it keeps in the context: without it there is
// often nothing but EINVAL.
func (c *fsContext) explain(operation string, err error) error {
	var said []string
	message := make([]byte, 1024)
	for {
		n, readErr := unix.Read(int(c.file), message)
		if readErr != nil || n <= 0 { // ENODATA: no more messages
			break
		}
		said = append(said, strings.TrimSpace(string(message[:n])))
	}
	if len(said) == 0 {
		return fmt.Errorf("%s of %s: %w", operation, c.fsType, err)
	}
	return fmt.Errorf("%s of %s: %w (kernel: %s)", operation, c.fsType, err, strings.Join(said, "; "))
}

// flagTable says what each flag is to the three interfaces: an attribute of the mount, a flag of
// mount(2), an option of the filesystem.
var flagTable = []struct {
	flag   flags
	attr   uint64
	ms     uintptr
	option string
}{
	{flagReadonly, unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY, "ro"},
	{flagNoSUID, unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID, ""},
	{flagNoDev, unix.MOUNT_ATTR_NODEV, unix.MS_NODEV, ""},
	{flagNoExec, unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC, ""},
	{flagNoAtime, unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME, ""},
	{flagStrictAtime, unix.MOUNT_ATTR_STRICTATIME, unix.MS_STRICTATIME, ""},
	{flagNoDirAtime, unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME, ""},
	{flagNoSymfollow, unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MS_NOSYMFOLLOW, ""},
	{flagSync, 0, unix.MS_SYNCHRONOUS, "sync"},
	{flagDirSync, 0, unix.MS_DIRSYNC, "dirsync"},
	{flagLazyTime, 0, unix.MS_LAZYTIME, "lazytime"},
}

// attrs returns the attributes of the plan's mount.
func (p plan) attrs() uint64 {
	var attrs uint64
	for _, f := range flagTable {
		if p.flags&f.flag != 0 {
			attrs |= f.attr
		}
	}
	if p.readonly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	return attrs
}

// mountFlags returns the flags for mount(2), which sets mount and filesystem alike.
func (p plan) mountFlags() uintptr {
	var ms uintptr
	for _, f := range flagTable {
		if p.flags&f.flag != 0 {
			ms |= f.ms
		}
	}
	return ms
}

// configure gives the plan's source and options to a filesystem.
func (p plan) configure(c *fsContext) error {
	if p.source != "" {
		if err := c.set(param{key: "source", value: p.source}); err != nil {
			return err
		}
	}
	for _, f := range flagTable {
		if p.flags&f.flag != 0 && f.option != "" {
			if err := c.set(param{key: f.option, flag: true}); err != nil {
				return err
			}
		}
	}
	for _, o := range p.params {
		if err := c.set(o); err != nil {
			return err
		}
	}
	return nil
}
