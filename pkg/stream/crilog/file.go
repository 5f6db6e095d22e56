package crilog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// Defaults of Options.
const (
	DefaultMaxLineBytes = 16 << 10
	DefaultRetry        = 10 * time.Second
)

var (
	// ErrBadPath says that a log path leaves its log directory, or cannot be a file name.
	ErrBadPath = errors.New("log path is not a relative path below the log directory")
	// ErrNotRegular says that a log path names something other than a regular file.
	ErrNotRegular = errors.New("log path is not a regular file")
	// ErrClosed says that the log file was closed.
	ErrClosed = errors.New("container log is closed")
)

// Options describe a log file. Zero values of MaxLineBytes and Retry mean the defaults.
type Options struct {
	Dir          string        // the pod's log directory, as kubelet gives it
	Path         string        // the container's log path, relative to Dir
	MaxLineBytes int           // text bytes of a record; longer lines are cut into partial records
	Retry        time.Duration // how long records that the disk refuses are tried again before they are dropped
}

func (o Options) withDefaults() Options {
	if o.MaxLineBytes == 0 {
		o.MaxLineBytes = DefaultMaxLineBytes
	}
	if o.Retry == 0 {
		o.Retry = DefaultRetry
	}
	return o
}

func (o Options) validate() error {
	if !filepath.IsAbs(o.Dir) || !filepath.IsLocal(o.Path) || filepath.Clean(o.Path) == "." ||
		strings.HasSuffix(o.Path, "/") || strings.ContainsAny(o.Dir+o.Path, "\x00\n") {
		return fmt.Errorf("log file %q in %q: %w", o.Path, o.Dir, ErrBadPath)
	}
	if o.MaxLineBytes < 0 || o.Retry < 0 {
		return fmt.Errorf("log file %q: negative limit (%d bytes, %v)", o.Path, o.MaxLineBytes, o.Retry)
	}
	return nil
}

// target is an open log file.
type target interface {
	Write(p []byte) (int, error)
	// Cut removes the last n bytes, which are the torn start of a record.
	Cut(n int64) error
	Close() error
}

// File is a container's log file, to which the writers of both streams append.
//
// A disk that refuses records (ENOSPC, EDQUOT, EIO) holds the container back for
// Options.Retry: its pipe fills up, it waits in write(2), and no line is lost when
// kubelet's rotation or garbage collection frees space meanwhile. After that time
// records are dropped and counted, so that a full disk does not stop every workload
// of a node; each further write tries the disk once, so logging resumes by itself.
// A slow disk is waited for without a limit.
type File struct {
	opts    Options
	open    func() (target, error)
	turn    chan struct{} // capacity 1; its holder may use out, refused and closed
	out     target
	refused bool // the last records were dropped: do not wait again
	closed  bool

	swap      chan handover // from Reopen to a writer that waits for space
	hurryOnce sync.Once
	hurry     chan struct{} // closed by GiveUp
	dropped   atomic.Uint64
}

// handover brings a reopened file to the writer that has the turn; done is closed
// when the old file is as it will stay.
type handover struct {
	next target
	done chan struct{}
}

// Open opens the log file for appending, creating it (mode 0640) and the directories
// of opts.Path (mode 0755). It returns ErrBadPath or ErrNotRegular for a path that it
// refuses. Close must be called.
func Open(opts Options) (*File, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return newFile(opts, func() (target, error) { return openTarget(opts.Dir, opts.Path) })
}

func newFile(opts Options, open func() (target, error)) (*File, error) {
	out, err := open()
	if err != nil {
		return nil, fmt.Errorf("open container log %s: %w", filepath.Join(opts.Dir, opts.Path), err)
	}
	return &File{
		opts:  opts,
		open:  open,
		turn:  make(chan struct{}, 1),
		out:   out,
		swap:  make(chan handover),
		hurry: make(chan struct{}),
	}, nil
}

// Path is the file's path.
func (f *File) Path() string { return filepath.Join(f.opts.Dir, f.opts.Path) }

// Dropped is how many records the disk refused for longer than Options.Retry.
func (f *File) Dropped() uint64 { return f.dropped.Load() }

// Reopen goes on in a new file of the same path. Records are whole in one of the two
// files: none is lost or written twice. It waits while a write is under way, until
// ctx ends; on an error the old file stays in use.
func (f *File) Reopen(ctx context.Context) error {
	next, err := f.open()
	if err != nil {
		return fmt.Errorf("reopen container log %s: %w", f.Path(), err)
	}
	h := handover{next: next, done: make(chan struct{})}
	select {
	case f.swap <- h:
		<-h.done
		return nil
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
		if f.closed {
			err = ErrClosed
			break
		}
		f.replace(ctx, next, 0)
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return errors.Join(fmt.Errorf("reopen container log %s: %w", f.Path(), err), next.Close())
}

// GiveUp ends the wait for a full disk, now and later: records that the disk refuses
// are dropped at once. It is the first step of ending a writer in bounded time.
func (f *File) GiveUp() {
	f.hurryOnce.Do(func() { close(f.hurry) })
}

// Close gives up, and closes the file when a write under way has returned. It
// returns an error when ctx ends first. Closing twice is allowed.
func (f *File) Close(ctx context.Context) error {
	f.GiveUp()
	var err error
	select {
	case f.turn <- struct{}{}:
		if !f.closed {
			f.closed = true
			err = f.out.Close()
		}
		<-f.turn
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("close container log %s: %w", f.Path(), err)
	}
	return nil
}

// appendLocked writes whole records; the caller has the turn. It returns ErrClosed after
// Close; records that the disk refuses are dropped as File describes, which is no error.
func (f *File) appendLocked(ctx context.Context, recs []byte) error {
	if f.closed {
		return ErrClosed
	}
	var wait *patience
	for off := 0; off < len(recs); {
		n, err := f.out.Write(recs[off:])
		off += n
		if err == nil {
			continue
		}
		if wait == nil && !f.refused {
			wait = newPatience(f.opts.Retry)
			klog.FromContext(ctx).Error(err, "Container log refuses records, trying again", "path", f.Path(), "for", f.opts.Retry)
		}
		torn := off - (bytes.LastIndexByte(recs[:off], '\n') + 1)
		switch h, again := f.hold(wait); {
		case h != nil:
			f.replace(ctx, h.next, torn)
			close(h.done)
			off -= torn
		case !again:
			return f.drop(ctx, recs[off-torn:], torn)
		}
	}
	if f.refused {
		f.refused = false
		klog.FromContext(ctx).Info("Container log accepts records again", "path", f.Path(), "dropped", f.Dropped())
	}
	return nil
}

// hold waits before a write is tried again. It returns a file to go on with when
// Reopen brought one, and false when the records are to be dropped.
func (f *File) hold(wait *patience) (_ *handover, again bool) {
	if wait == nil { // already dropping
		return nil, false
	}
	pause, ok := wait.next()
	if !ok {
		return nil, false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, true
	case h := <-f.swap:
		return &h, true
	case <-f.hurry:
		return nil, false
	}
}

// replace moves on to next; the record that is torn at the old file's end is cut
// off there, because it will be written again.
func (f *File) replace(ctx context.Context, next target, torn int) {
	if err := errors.Join(f.out.Cut(int64(torn)), f.out.Close()); err != nil {
		klog.FromContext(ctx).Error(err, "Rotated container log may end in a torn record", "path", f.Path())
	}
	f.out = next
}

func (f *File) drop(ctx context.Context, recs []byte, torn int) error {
	f.dropped.Add(uint64(bytes.Count(recs, []byte{'\n'})))
	if !f.refused {
		f.refused = true
		klog.FromContext(ctx).Error(nil, "Container log drops records until the disk takes them", "path", f.Path())
	}
	if err := f.out.Cut(int64(torn)); err != nil {
		klog.FromContext(ctx).Error(err, "Container log has a torn record", "path", f.Path())
	}
	return nil
}

// patience spaces the attempts of one write, and ends.
type patience struct {
	until time.Time
	delay time.Duration
}

func newPatience(total time.Duration) *patience {
	return &patience{until: time.Now().Add(total), delay: 10 * time.Millisecond}
}

func (p *patience) next() (time.Duration, bool) {
	left := time.Until(p.until)
	if left <= 0 {
		return 0, false
	}
	d := min(p.delay, left)
	p.delay = min(2*p.delay, 500*time.Millisecond)
	return d, true
}
