package engine

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
	// settleQuiet is how many looks in a row have to find nothing: containerd, its shim and the OCI runtime take
	// turns, each a few milliseconds.
	settleQuiet = 4
	// settleTimeout bounds the wait; a runtime that hangs is seen to when its container is removed.
	settleTimeout = 10 * time.Second
)

// Settle waits until no program creates, starts or deletes one of the tasks. A client that was killed leaves such work
// to end by itself, and until then what it leaves is not all there to be seen.
func (e *Engine) Settle(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	var busy string
	quiet := 0
	err := wait.PollUntilContextTimeout(ctx, settleLook, settleTimeout, true, func(context.Context) (_ bool, err error) {
		quiet++
		if busy, err = anyBusy(ids); busy != "" {
			quiet = 0
		}
		return quiet == settleQuiet, err
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("wait for %q: %w", busy, err)
	}
	return err
}

// anyBusy returns the command line of a program that is at work on one of the tasks.
func anyBusy(ids []string) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && worksOn(line, ids) {
			return string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))), nil
		}
	}
	return "", nil
}

// worksOn reads a command line of /proc. An OCI runtime has the container's id last ("runc ... create ... ID"), a shim's
// helper has its verb there ("containerd-shim-runc-v2 ... -id ID start"). The shim itself has none and stays.
func worksOn(cmdline []byte, ids []string) bool {
	var args []string
	for _, arg := range bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
		args = append(args, string(arg))
	}
	last := args[len(args)-1]
	if last == "start" || last == "delete" {
		at := slices.Index(args, "-id")
		return at >= 0 && slices.Contains(ids, args[at+1])
	}
	if !slices.Contains(ids, last) {
		return false
	}
	return slices.ContainsFunc(args, func(arg string) bool {
		return arg == "create" || arg == "start" || arg == "delete" || arg == "kill"
	})
}
