package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// commitImage is the file before and after one commit, and what it held.
type commitImage struct {
	before, after []byte
	old, new      map[string]string
}

// record runs transactions that put, overwrite and delete values of many sizes,
// and keeps the file's bytes around each commit.
func record(t *testing.T, commits int) []commitImage {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, Options{Path: path})
	random := rand.New(rand.NewPCG(7, 7))
	snapshot := func() ([]byte, map[string]string) {
		data, err := os.ReadFile(path)
		found, cerr := contents(db, "few", "many", "large")
		if err := errors.Join(err, cerr); err != nil {
			t.Fatal(err)
		}
		return data, found
	}
	var images []commitImage
	before, old := snapshot()
	for i := range commits {
		mustUpdate(t, db, func(tx *Tx) (err error) {
			for range 1 + random.IntN(10) {
				key := fmt.Sprint(random.IntN(200))
				err = errors.Join(err, tx.Raw("many").Put(key, bytes.Repeat([]byte{byte(i)}, random.IntN(400))),
					tx.Raw("many").Delete(fmt.Sprint(random.IntN(200))))
			}
			if i%5 == 0 {
				err = errors.Join(err, tx.Raw("large").Put(fmt.Sprint(random.IntN(3)), bytes.Repeat([]byte{byte(i)}, 20_000)))
			}
			return err
		})
		after, found := snapshot()
		images = append(images, commitImage{before: before, after: after, old: old, new: found})
		before, old = after, found
	}
	return images
}

// TestPowerCut cuts the power at every point of a commit: the data pages reach
// the disk in any order, in part or torn, and only when all of them are there does
// the meta page follow, which may be torn too. What opens then is the state
// before or the state after, never a third one.
func TestPowerCut(t *testing.T) {
	pageSize := os.Getpagesize()
	path := filepath.Join(t.TempDir(), "state.db")
	random := rand.New(rand.NewPCG(3, 9))
	for i, image := range record(t, 25) {
		base := make([]byte, len(image.after)) // the file grows before the pages are written
		copy(base, image.before)
		var data []int
		meta := -1
		for at := 0; at < len(base); at += pageSize {
			if bytes.Equal(base[at:at+pageSize], image.after[at:at+pageSize]) {
				continue
			}
			if at < 2*pageSize {
				meta = at
			} else {
				data = append(data, at)
			}
		}
		if meta < 0 || len(data) == 0 {
			t.Fatalf("commit %d wrote meta page %d and %d others", i, meta, len(data))
		}
		expect := func(what string, file []byte, allowed ...map[string]string) {
			t.Helper()
			found, err := tryOpen(t, path, file)
			for _, want := range allowed {
				if err == nil && maps.Equal(found, want) {
					return
				}
			}
			t.Fatalf("commit %d, %s: %d records, %v", i, what, len(found), err)
		}
		for range 5 {
			file := bytes.Clone(base)
			for _, at := range data {
				from, to := 0, pageSize
				switch random.IntN(3) {
				case 0:
					continue
				case 1: // torn at the border of a sector
					from = random.IntN(8) * 512
					to = from + 512
				}
				copy(file[at+from:at+to], image.after[at+from:])
			}
			expect("some pages", file, image.old)
		}
		whole := bytes.Clone(image.after)
		expect("everything", whole, image.new)
		for cut := 0; cut <= headerSize+metaSize; cut += 8 {
			copy(whole[meta:meta+pageSize], base[meta:])
			copy(whole[meta:meta+cut], image.after[meta:])
			expect(fmt.Sprintf("%d bytes of the meta page", cut), whole, image.old, image.new)
		}
	}
}
