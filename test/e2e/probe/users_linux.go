package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func ids() (result, error) {
	groups, err := unix.Getgroups()
	return result{UID: unix.Geteuid(), GID: unix.Getegid(), Groups: groups}, err
}

func setGroups(args []string) (result, error) {
	groups, err := numbers(args)
	if err != nil {
		return result{}, err
	}
	if err := unix.Setgroups(groups); err != nil {
		return result{}, os.NewSyscallError("setgroups", err)
	}
	return ids()
}

// nestedInside makes a user namespace below the pod's, with the whole of the pod's ids in it, and reads its map.
func nestedInside() (result, error) {
	return nested(0, 65536)
}

// nestedBeyond tries to map an id that the pod does not have.
func nestedBeyond() (result, error) {
	return nested(65535, 2)
}

func nested(first, count int) (result, error) {
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: count}}
	cmd := exec.Command("cat", "/proc/self/uid_map")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER,
		UidMappings:                mapping,
		GidMappings:                mapping,
		GidMappingsEnableSetgroups: true,
	}
	out, err := cmd.Output()
	return result{Text: strings.Join(strings.Fields(string(out)), " ")}, err
}
