package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// inspect reads the whole database without mapping it, and returns a
// *DamagedError for whatever bbolt would crash on or return a wrong answer for:
// a file cut short, pages that are not what points to them, keys out of order, a
// value that is not what was put. Errors of reading are returned as they are.
func inspect(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var damage *damageError
	err = inspectFile(f, info.Size())
	if errors.As(err, &damage) {
		return &DamagedError{Path: f.Name(), Detail: damage.Error()}
	}
	if err != nil {
		return fmt.Errorf("read database %s: %w", f.Name(), err)
	}
	return nil
}

// damageError is damage, as opposed to an error of reading.
type damageError struct{ detail string }

func (e *damageError) Error() string { return e.detail }

func damagef(format string, args ...any) error {
	return &damageError{detail: fmt.Sprintf(format, args...)}
}

func inspectFile(f io.ReaderAt, size int64) error {
	m, err := findMeta(f, uint64(size))
	if err != nil {
		return err
	}
	if m.high > uint64(size)/m.pageSize {
		return damagef("the file is cut short: %d bytes of %d", size, m.high*m.pageSize)
	}
	in := &inspector{file: f, meta: m, seen: map[uint64]bool{}}
	root, err := in.page(m.root)
	if err != nil {
		return err
	}
	if err := in.tree(root, bounds{}, in.topLevel); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return in.freelist(m.freelist)
}

// findMeta returns the meta page that counts. Without a good first page it looks
// for the second where the page sizes that bbolt knows put it.
func findMeta(f io.ReaderAt, size uint64) (meta, error) {
	if size == 0 {
		return meta{}, damagef("the file is empty")
	}
	var found meta
	for _, at := range metaOffsets(size) {
		buf := make([]byte, headerSize+metaSize)
		if _, err := f.ReadAt(buf, int64(at)); err != nil && !errors.Is(err, io.EOF) {
			return meta{}, err
		}
		m, ok := parseMeta(buf)
		if !ok || m.pageSize < 1024 || (at != 0 && at != m.pageSize) {
			continue
		}
		if m.txid >= found.txid {
			found = m
		}
	}
	if found.pageSize == 0 {
		return meta{}, damagef("neither of its two first pages is intact, or it is no database at all")
	}
	return found, nil
}

func metaOffsets(size uint64) []uint64 {
	offsets := []uint64{0}
	for at := uint64(1024); at < size && at <= 1024<<14; at *= 2 {
		offsets = append(offsets, at)
	}
	return offsets
}

// inspector walks through one database.
type inspector struct {
	file io.ReaderAt
	meta meta
	seen map[uint64]bool // pages that something points to
}

// bounds are what the keys of a subtree may be: from min on, below max; nil for
// none.
type bounds struct{ min, max []byte }

// page reads a page and those that continue it, to which nothing else may point:
// a tree with a loop in it would keep bbolt busy until memory ends.
func (in *inspector) page(id uint64) (page, error) {
	if id < 2 || id >= in.meta.high {
		return nil, damagef("something points to page %d of %d", id, in.meta.high)
	}
	head := make(page, headerSize)
	if err := in.read(head, id); err != nil {
		return nil, err
	}
	n := head.overflow() + 1
	if head.id() != id || id+n > in.meta.high {
		return nil, damagef("page %d calls itself %d and is %d pages long", id, head.id(), n)
	}
	for i := id; i < id+n; i++ {
		if in.seen[i] {
			return nil, damagef("page %d is used twice", i)
		}
		in.seen[i] = true
	}
	p := make(page, n*in.meta.pageSize)
	return p, in.read(p, id)
}

func (in *inspector) read(p page, id uint64) error {
	_, err := in.file.ReadAt(p, int64(id*in.meta.pageSize))
	if errors.Is(err, io.EOF) {
		return damagef("the file ends within page %d", id)
	}
	return err
}

// tree calls leaf for each element of the tree below p and checks that keys are
// in order and where bbolt would look for them.
func (in *inspector) tree(p page, b bounds, leaf func(element) error) error {
	elements, err := p.elements()
	if err != nil {
		return damagef("page %d: %v", p.id(), err)
	}
	if p.flags() == branchPage && len(elements) == 0 {
		return damagef("page %d is a branch without children", p.id())
	}
	for i, e := range elements {
		low, high := b.min, b.max
		if i+1 < len(elements) {
			high = elements[i+1].key
		}
		if bytes.Compare(e.key, low) < 0 || (high != nil && bytes.Compare(e.key, high) >= 0) {
			return damagef("page %d: keys are out of order at element %d", p.id(), i)
		}
		if p.flags() == leafPage {
			err = leaf(e)
		} else {
			err = in.child(e.child, bounds{min: e.key, max: high}, leaf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *inspector) child(id uint64, b bounds, leaf func(element) error) error {
	p, err := in.page(id)
	if err != nil {
		return err
	}
	if p.count() == 0 {
		return damagef("page %d is empty and not the top of its tree", id)
	}
	return in.tree(p, b, leaf)
}

// topLevel checks an element of the root, which is a bucket. One of a few keys
// lives inside its element as a leaf of its own.
func (in *inspector) topLevel(e element) error {
	if !e.bucket || len(e.value) < bucketSize {
		return damagef("top-level key %q is no bucket", e.key)
	}
	leaf := func(record element) error { return in.record(string(e.key), record) }
	id := native.Uint64(e.value)
	if id != 0 {
		p, err := in.page(id)
		if err != nil {
			return err
		}
		return in.tree(p, bounds{}, leaf)
	}
	p := page(e.value[bucketSize:])
	if len(p) < headerSize || p.flags() != leafPage {
		return damagef("bucket %q has no page", e.key)
	}
	return in.tree(p, bounds{}, leaf)
}

func (in *inspector) record(bucket string, e element) error {
	if e.bucket {
		return damagef("bucket %q holds a bucket %q", bucket, e.key)
	}
	if _, err := unseal(bucket, string(e.key), e.value); err != nil {
		return damagef("record %s/%s: %v", bucket, e.key, err)
	}
	return nil
}

// freelist checks a stored list of free pages. Open does not store one, but a
// copy made by bbolt's own tools has it.
func (in *inspector) freelist(id uint64) error {
	p, err := in.page(id)
	if err != nil {
		return err
	}
	ids, count := p[headerSize:], uint64(p.count())
	if count == 0xFFFF { // the number does not fit and comes first in the list
		count, ids = native.Uint64(ids), ids[8:]
	}
	if p.flags() != freelistPage || count > uint64(len(ids)/8) {
		return damagef("page %d is no list of free pages", id)
	}
	for i := range count {
		free := native.Uint64(ids[i*8:])
		if free < 2 || free >= in.meta.high || in.seen[free] {
			return damagef("page %d is listed as free", free)
		}
		in.seen[free] = true
	}
	return nil
}
