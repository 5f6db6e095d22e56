package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"

	"github.com/userns-shim/userns-shim/packaging"
)

// giveKubeletIDs runs the packages' own script in the node's root, with the node's tools.
func giveKubeletIDs(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-s")
	cmd.Dir = "/"
	if root != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(packaging.KubeletIDs)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
