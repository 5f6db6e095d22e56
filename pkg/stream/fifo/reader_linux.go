package fifo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reader is the read end of a FIFO. Read is for one goroutine; Finish and Close
// are for any.
type Reader struct {
	file     *os.File
	raw      syscall.RawConn
	finished atomic.Bool
	closed   atomic.Bool
}

// OpenReader opens the read end at path. It does not wait for a writer.
func OpenReader(path string) (*Reader, error) {
	file, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open FIFO %s for reading: %w", path, err)
	}
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // proves that the runtime polls the file
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("poll FIFO %s: %w", path, err), file.Close())
	}
	return &Reader{file: file, raw: raw}, nil
}

// Read reads what is there, waiting for a first writer and for data. It returns
// io.EOF when the FIFO is empty and has lost its last writer, and os.ErrClosed
// after Close.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		var n int
		var readErr error
		err := r.raw.Read(func(fd uintptr) bool {
			n, readErr = r.attempt(int(fd), p)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		switch {
		case err == nil && readErr != nil && !errors.Is(readErr, io.EOF):
			return 0, fmt.Errorf("read FIFO %s: %w", r.file.Name(), readErr)
		case err == nil:
			return n, readErr
		case r.closed.Load():
			return 0, os.ErrClosed // the poller's own error for this does not match it
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, fmt.Errorf("wait for FIFO %s: %w", r.file.Name(), err)
		}
		// Finish woke the reader, which now looks again under the new rule.
		if err := r.file.SetReadDeadline(time.Time{}); err != nil {
			return 0, os.ErrClosed // only Close takes deadlines away
		}
	}
}

// attempt reads once. EAGAIN means that the caller has to wait.
//
// A read of no bytes means that there is no writer now. POLLHUP is set only where
// there was one while this end was open, or when it was opened: Linux compares the
// pipe's writer count with the count at open time (pipe_poll, since 2.6).
func (r *Reader) attempt(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n > 0 || len(p) == 0:
			return n, nil
		}
		state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(state, 0); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return 0, err
		}
		switch {
		case state[0].Revents&unix.POLLIN != 0: // written between read and poll
			continue
		case state[0].Revents&unix.POLLHUP != 0 || r.finished.Load():
			return 0, io.EOF
		default:
			return 0, unix.EAGAIN
		}
	}
}

// Finish says that no writer will come any more, because the process has exited.
// Read then returns io.EOF also when there never was a writer. A writer that is
// there (the shim that still copies, a background process) is still read to its end.
func (r *Reader) Finish() {
	r.finished.Store(true)
	_ = r.file.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, where Read returns anyway
}

// Close closes the read end; a Read under way returns os.ErrClosed. What the FIFO
// holds stays there while some other process has it open.
func (r *Reader) Close() error {
	r.closed.Store(true)
	return r.file.Close()
}
