package state

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// contents returns all records outside of the package's own bucket.
func contents(db *DB, buckets ...string) (map[string]string, error) {
	found := map[string]string{}
	err := db.View(func(tx *Tx) error {
		for _, name := range buckets {
			err := tx.Raw(name).ForEach(func(key string, value []byte) error {
				found[name+"/"+key] = string(value)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

// sample makes a database with a bucket that lives inside its element, one of
// many pages and one with a value of several pages, closes it, and returns the
// file's bytes and what it holds.
func sample(t testing.TB) ([]byte, map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, Options{Path: path})
	mustUpdate(t, db, func(tx *Tx) error { return tx.Raw("few").Put("one", []byte("1")) })
	for i := range 5 {
		mustUpdate(t, db, func(tx *Tx) error {
			err := tx.Raw("large").Put(fmt.Sprint(i), bytes.Repeat([]byte{byte('a' + i)}, 10_000))
			for j := range 60 {
				err = errors.Join(err, tx.Raw("many").Put(fmt.Sprintf("%d-%d", j%7, i*60+j), bytes.Repeat([]byte("x"), 50)))
			}
			return err
		})
	}
	want, err := contents(db, "few", "many", "large")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := parseMeta(data)
	if second, _ := parseMeta(data[m.pageSize:]); second.txid > m.txid {
		m = second
	}
	if !ok || m.high*m.pageSize > uint64(len(data)) {
		t.Fatalf("the sample has no good meta page: %+v", m)
	}
	return data[:m.high*m.pageSize], want // without the room to grow
}

// tryOpen opens a file of these bytes and returns what is in it.
func tryOpen(t testing.TB, path string, data []byte) (map[string]string, error) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Options{Path: path})
	if err != nil {
		return nil, err
	}
	found, err := contents(db, "few", "many", "large")
	// A database that opens also takes a write.
	err = errors.Join(err, db.Update(func(tx *Tx) error { return tx.Raw("many").Put("written later", []byte("v")) }), db.Close())
	return found, err
}

func TestOpenRefusesCutFile(t *testing.T) {
	data, _ := sample(t)
	path := filepath.Join(t.TempDir(), "state.db")
	for size := 0; size < len(data); size += 1 + len(data)/200 {
		found, err := tryOpen(t, path, data[:size])
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d of %d bytes: %d records, %v", size, len(data), len(found), err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, data[:size]) {
			t.Fatalf("%d of %d bytes: the file was changed", size, len(data))
		}
	}
}

func TestDamageErrorNamesTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for content, want := range map[string]string{
		"":                                  "the file is empty",
		"id: 17":                            "no database",
		strings.Repeat("not a page ", 9999): "no database",
	} {
		_, err := tryOpen(t, path, []byte(content))
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.Path != path || !strings.Contains(damaged.Detail, want) {
			t.Errorf("%.10q: %v", content, err)
			continue
		}
		for _, part := range []string{path, "left as it is", "good copy", "`userns-shim pool rebuild`"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
}

// TestOpenSurvivesAnyDamage turns bytes of a database. Each file either is
// refused, or is read as it was: a byte may lie where nothing is kept. It never
// ends the process.
func TestOpenSurvivesAnyDamage(t *testing.T) {
	data, want := sample(t)
	path := filepath.Join(t.TempDir(), "state.db")
	random := rand.New(rand.NewPCG(1, 2))
	refused, pageSize := 0, os.Getpagesize()
	older := olderContents(t, path, data)
	for i := range 1000 {
		bad := bytes.Clone(data)
		at := random.IntN(len(bad))
		switch i % 4 {
		case 0: // one bit anywhere
			bad[at] ^= 1 << random.IntN(8)
		case 1: // a byte of a page's header or of its first elements
			bad[at/pageSize*pageSize+random.IntN(80)] = byte(random.Uint32())
		case 2: // a page over another
			to := random.IntN(len(bad) / pageSize)
			copy(bad[to*pageSize:][:pageSize], bad[at/pageSize*pageSize:])
		case 3: // a page that was never written
			clear(bad[at/pageSize*pageSize:][:pageSize])
		}
		found, err := tryOpen(t, path, bad)
		switch {
		case errors.Is(err, ErrDamaged) || errors.Is(err, ErrSchema):
			refused++
		case err != nil:
			t.Fatalf("damage %d: %v", i, err)
		case !maps.Equal(found, want) && !maps.Equal(found, older):
			t.Fatalf("damage %d was not seen: %d records of %d", i, len(found), len(want))
		}
	}
	t.Logf("%d of 1000 refused", refused)
	if refused < 200 {
		t.Errorf("only %d of 1000 damaged files were refused", refused)
	}
}

// olderContents returns what the database held before its last transaction,
// which is what a file without its newer meta page describes.
func olderContents(t *testing.T, path string, data []byte) map[string]string {
	t.Helper()
	pageSize := os.Getpagesize()
	first, _ := parseMeta(data)
	second, _ := parseMeta(data[pageSize:])
	bad := bytes.Clone(data)
	if first.txid > second.txid {
		clear(bad[:pageSize])
	} else {
		clear(bad[pageSize : 2*pageSize])
	}
	found, err := tryOpen(t, path, bad)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOpenRefusesLoops points a branch back to its own page, which would keep
// bbolt busy for ever, and a bucket at pages that are not there.
func TestOpenRefusesLoops(t *testing.T) {
	data, _ := sample(t)
	path := filepath.Join(t.TempDir(), "state.db")
	pageSize, refused := os.Getpagesize(), 0
	for at := 2 * pageSize; at < len(data); at += pageSize {
		p := page(data[at : at+pageSize])
		if p.flags() != branchPage || p.id() != uint64(at/pageSize) {
			continue
		}
		for _, target := range []uint64{p.id(), 0, 1, 1 << 20, 1 << 60, ^uint64(0)} {
			bad := bytes.Clone(data)
			native.PutUint64(bad[at+headerSize+8:], target)
			_, err := tryOpen(t, path, bad)
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("page %d points to %d: %v", p.id(), target, err)
			}
			if err != nil {
				refused++
			}
		}
	}
	// Branches that no tree uses any more may point anywhere; the one in use
	// may not.
	if refused < 6 {
		t.Errorf("%d refused", refused)
	}
}

// FuzzInspect looks for files on which the inspection itself crashes, never ends,
// or passes what bbolt then cannot open. Each is a small database with bytes
// patched in at two places, and a meta page that is right again.
func FuzzInspect(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state.db")
	db := open(f, Options{Path: path})
	mustUpdate(f, db, func(tx *Tx) (err error) {
		for i := range 40 {
			err = errors.Join(err, tx.Raw("many").Put(fmt.Sprint(i), make([]byte, 200)), tx.Raw("few").Put("one", nil))
		}
		return err
	})
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	data = data[:12*os.Getpagesize()]
	f.Add(uint16(0), []byte{}, uint16(9000), []byte{1, 2, 3})
	f.Add(uint16(headerSize+40), []byte{2}, uint16(16384+8), []byte{1, 0, 255, 255})
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, at2 uint16, patch2 []byte) {
		bad := bytes.Clone(data)
		copy(bad[int(at)%len(bad):], patch)
		copy(bad[int(at2)%len(bad):], patch2)
		repairMeta(bad)
		err := inspectFile(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			var damage *damageError
			if !errors.As(err, &damage) {
				t.Fatalf("error %v is no damage", err)
			}
			return
		}
		if _, err := tryOpen(t, filepath.Join(t.TempDir(), "state.db"), bad); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrSchema) {
			t.Fatalf("passed the inspection: %v", err)
		}
	})
}

// repairMeta gives the first meta page a right checksum, so that the fuzzer gets
// beyond it, and a high water mark within the file.
func repairMeta(data []byte) {
	if len(data) < headerSize+metaSize {
		return
	}
	m := data[headerSize:]
	native.PutUint32(m, boltMagic)
	native.PutUint32(m[4:], boltVersion)
	native.PutUint32(m[8:], uint32(os.Getpagesize()))
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	native.PutUint64(m[56:], sum.Sum64())
}
