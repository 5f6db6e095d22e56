package state

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
)

// The format of bbolt's file, version 2: pages of one size, numbered from 0. The
// first two are meta pages, of which the one with the higher transaction id
// counts; the others are nodes of B+ trees. Numbers are in the byte order of the
// machine.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	headerSize  = 16 // id 8, flags 2, count 2, overflow 4
	elementSize = 16
	metaSize    = 64 // magic 4, version 4, page size 4, flags 4, root 8+8, freelist 8, high water mark 8, txid 8, checksum 8

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketElement = 0x01
	bucketSize    = 16 // root page 8, sequence 8

	noFreelist = ^uint64(0)
)

var native = binary.NativeEndian

// meta is what a valid meta page says.
type meta struct {
	pageSize uint64 // bytes
	root     uint64 // page of the root bucket
	freelist uint64 // page, or noFreelist
	high     uint64 // number of pages
	txid     uint64
}

// parseMeta reads the meta page that begins with b, and says whether it is one.
func parseMeta(b []byte) (meta, bool) {
	if len(b) < headerSize+metaSize {
		return meta{}, false
	}
	b = b[headerSize:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if native.Uint32(b) != boltMagic || native.Uint32(b[4:]) != boltVersion || native.Uint64(b[56:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		pageSize: uint64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]),
		freelist: native.Uint64(b[32:]),
		high:     native.Uint64(b[40:]),
		txid:     native.Uint64(b[48:]),
	}, true
}

// page is one page with those that continue it, or a bucket that is small enough
// to live inside the value that stands for it.
type page []byte

func (p page) id() uint64       { return native.Uint64(p) }
func (p page) flags() uint16    { return native.Uint16(p[8:]) }
func (p page) count() int       { return int(native.Uint16(p[10:])) }
func (p page) overflow() uint64 { return uint64(native.Uint32(p[12:])) }

// element is one of a branch (child is its page) or of a leaf (value, which may
// stand for a bucket).
type element struct {
	key, value []byte
	child      uint64
	bucket     bool
}

// elements returns the page's elements. Their places are checked against the end
// of the page, which bbolt itself does not do.
func (p page) elements() ([]element, error) {
	flags, count := p.flags(), p.count()
	if flags != branchPage && flags != leafPage {
		return nil, fmt.Errorf("flags %#x are neither a branch's nor a leaf's", flags)
	}
	if headerSize+count*elementSize > len(p) {
		return nil, fmt.Errorf("%d elements do not fit", count)
	}
	elements := make([]element, count)
	for i := range elements {
		at := headerSize + i*elementSize
		head := p[at:]
		var pos, keySize, valueSize uint32
		e := &elements[i]
		if flags == branchPage {
			pos, keySize, e.child = native.Uint32(head), native.Uint32(head[4:]), native.Uint64(head[8:])
		} else {
			e.bucket = native.Uint32(head)&bucketElement != 0
			pos, keySize, valueSize = native.Uint32(head[4:]), native.Uint32(head[8:]), native.Uint32(head[12:])
		}
		key := uint64(at) + uint64(pos)
		value := key + uint64(keySize)
		end := value + uint64(valueSize)
		if end > uint64(len(p)) || key < uint64(headerSize+count*elementSize) {
			return nil, fmt.Errorf("element %d lies outside", i)
		}
		e.key, e.value = p[key:value], p[value:end]
	}
	return elements, nil
}
