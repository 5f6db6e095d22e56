package crilog

import (
	"context"
	"time"
)

// batchBytes is how much one write(2) takes at most, apart from a last record that
// exceeds it. Batches hold whole records.
const batchBytes = 64 << 10

// Writer turns one output stream into records of a File. It is for one goroutine;
// the writers of a File may run side by side.
type Writer struct {
	file  *File
	name  Stream
	split splitter
	now   func() time.Time
	batch []byte
}

// Writer returns the writer of the stream name. There must be one for each stream.
func (f *File) Writer(name Stream) *Writer {
	return &Writer{file: f, name: name, split: splitter{max: f.opts.MaxLineBytes}, now: time.Now}
}

// Write takes the stream's next bytes. Lines are in the file when it returns; an
// unfinished line is kept for the next Write or Flush. It returns ErrClosed after the
// file was closed.
func (w *Writer) Write(ctx context.Context, p []byte) error {
	return w.collect(ctx, func(emit emitFunc) { w.split.feed(p, emit) })
}

// Flush writes an unfinished line as a partial record.
func (w *Writer) Flush(ctx context.Context) error {
	return w.collect(ctx, w.split.flush)
}

// collect writes, in batches, the records that split emits. It has the file's turn
// all along, so that records are stamped in the order in which they are written.
func (w *Writer) collect(ctx context.Context, split func(emitFunc)) error {
	w.file.turn <- struct{}{}
	defer func() { <-w.file.turn }()
	var err error
	w.batch = w.batch[:0]
	split(func(tag byte, text []byte) {
		w.batch = appendRecord(w.batch, w.now(), w.name, tag, text)
		if len(w.batch) >= batchBytes {
			if err == nil {
				err = w.file.appendLocked(ctx, w.batch)
			}
			w.batch = w.batch[:0]
		}
	})
	if err != nil || len(w.batch) == 0 {
		return err
	}
	return w.file.appendLocked(ctx, w.batch)
}
