package state

import (
	"bytes"
	"os"
	"testing"
)

// BenchmarkMirror writes the file of a row of 3 KiB, as a sandbox's is, in memory as /run is.
func BenchmarkMirror(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "mirror-")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(dir)
	m, err := OpenMirror(dir, func(err error) { b.Error(err) })
	if err != nil {
		b.Fatal(err)
	}
	value := bytes.Repeat([]byte("x"), 3<<10)
	for b.Loop() {
		m.put("1", value)
	}
}
