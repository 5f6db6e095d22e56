package fifo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// OpenWriter opens the write end at path, waiting until a reader has it open: the
// shim opens its end of stdin some time after it was asked to start the process.
// Writes to the file block while the pipe is full, obey SetWriteDeadline, and
// return EPIPE once the reader is gone.
func OpenWriter(ctx context.Context, path string) (*os.File, error) {
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		file, err := open(path, unix.O_WRONLY)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("open FIFO %s for writing: %w", path, err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a reader of FIFO %s: %w", path, context.Cause(ctx))
		}
	}
}
