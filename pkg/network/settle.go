package network

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// settleLook is the pause between two looks at what runs.
	settleLook = 25 * time.Millisecond
	// settleTimeout bounds the wait for a plugin that hangs; Teardown then goes on beside it.
	settleTimeout = 10 * time.Second
)

// Settle waits until no plugin works on one of the pods, by their sandbox ids. A program that was killed leaves the
// plugin that it ran to end by itself, and what that adds after its DEL nobody would remove.
func Settle(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	var pid string
	err := wait.PollUntilContextTimeout(ctx, settleLook, settleTimeout, true, func(context.Context) (_ bool, err error) {
		pid, err = pluginOf(ids)
		return pid == "", err
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("wait for CNI plugin with pid %s: %w", pid, err)
	}
	return err
}

// pluginOf returns the pid of a program that has the environment of a plugin for one of the pods.
func pluginOf(ids []string) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err == nil && serves(environ, ids) {
			return filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", nil
}

func serves(environ []byte, ids []string) bool {
	const name = "CNI_CONTAINERID="
	for _, variable := range bytes.Split(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, []byte(name)); ok && slices.Contains(ids, string(value)) {
			return true
		}
	}
	return false
}
