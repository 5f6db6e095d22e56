package checkpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type entry struct {
	tar.Header
	data string
}

func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}, data}
}

func archiveOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpack returns what is in the directory afterwards, and holds that nothing is beside it.
func unpack(t testing.TB, data []byte, limits Limits) ([]string, error) {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = Unpack(t.Context(), bytes.NewReader(data), root, &limits)
	var names []string
	walkErr := filepath.WalkDir(parent, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == parent || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if !filepath.IsLocal(rel) || !e.IsDir() && !e.Type().IsRegular() {
			t.Errorf("the archive made %s of type %s", rel, e.Type())
		}
		if !e.IsDir() {
			names = append(names, rel)
		}
		return err
	})
	if walkErr != nil {
		t.Fatal(walkErr)
	}
	return names, err
}

var enough = Limits{Bytes: 1000, Files: 10}

func TestUnpackTakesWhatARestoreReads(t *testing.T) {
	data := archiveOf(t,
		entry{tar.Header{Typeflag: tar.TypeDir, Name: "checkpoint/", Mode: 0o700}, ""},
		file("./config.dump", "{}"), file("spec.dump", "{}"), file("checkpoint/a.img", "a"), file("volumes/00.tar", "v"),
		file("rootfs-diff.tar", "d"), file("container.log", "is left out"), file("dump.log", "is left out"), file("other/x", "is left out"),
	)
	names, err := unpack(t, data, enough)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"checkpoint/a.img", "config.dump", "rootfs-diff.tar", "spec.dump", "volumes/00.tar"}; !slices.Equal(names, want) {
		t.Errorf("unpacked are %q, want %q", names, want)
	}
}

func TestUnpackRefuses(t *testing.T) {
	link := func(kind byte, name, to string) entry {
		return entry{tar.Header{Typeflag: kind, Name: name, Linkname: to}, ""}
	}
	for name, c := range map[string]struct {
		data   []byte
		limits Limits
	}{
		"a symlink":        {archiveOf(t, link(tar.TypeSymlink, "spec.dump", "/etc/passwd")), enough},
		"a hard link":      {archiveOf(t, link(tar.TypeLink, "checkpoint/a", "/etc/passwd")), enough},
		"a FIFO":           {archiveOf(t, link(tar.TypeFifo, "config.dump", "")), enough},
		"a directory":      {archiveOf(t, link(tar.TypeDir, "config.dump/", "")), enough},
		"a file twice":     {archiveOf(t, file("spec.dump", "1"), file("spec.dump", "2")), enough},
		"too many bytes":   {archiveOf(t, file("spec.dump", "12345"), file("config.dump", "12345")), Limits{Bytes: 9, Files: 10}},
		"too many files":   {archiveOf(t, file("x", ""), file("y", "")), Limits{Bytes: 9, Files: 1}},
		"no archive":       {bytes.Repeat([]byte("x"), 2000), enough},
		"a cut archive":    {archiveOf(t, file("spec.dump", "12345"))[:514], enough},
		"a sparse promise": {archiveOf(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "spec.dump", Size: 10}, "0123456789"})[:600], Limits{Bytes: 5, Files: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := unpack(t, c.data, c.limits); !errors.Is(err, ErrInvalid) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestUnpackStaysInside holds that names which lead out are not among those that are read.
func TestUnpackStaysInside(t *testing.T) {
	for _, name := range []string{"../spec.dump", "/spec.dump", "checkpoint/../../spec.dump", "checkpoint/../../../tmp/x", "volumes/../../x", "checkpoint/a/b"} {
		if names, err := unpack(t, archiveOf(t, file(name, "x")), enough); err != nil && !errors.Is(err, ErrInvalid) || len(names) > 0 {
			t.Errorf("%s makes %q, %v", name, names, err)
		}
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = Unpack(ctx, bytes.NewReader(archiveOf(t, file("spec.dump", "x"))), root, &Limits{Bytes: 9, Files: 9})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrInvalid) {
		t.Errorf("the error is %v", err)
	}
}

// TestPackAndRead takes a directory through an archive.
func TestPackAndRead(t *testing.T) {
	dir := t.TempDir()
	spec := &specs.Spec{Process: &specs.Process{Args: []string{"x"}}, Linux: &specs.Linux{}}
	err := Describe(dir, Description{Config: metadata.ContainerConfig{ID: "id", RootfsImageRef: "image"}, Spec: spec}, nil)
	err = errors.Join(err, os.Mkdir(filepath.Join(dir, ImagesDir), 0o700),
		os.WriteFile(filepath.Join(dir, ImagesDir, "pages-1.img"), []byte("pages"), 0o644),
		os.Symlink("/", filepath.Join(dir, ImagesDir, "parent")))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := Pack(t.Context(), dir, &archive); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Unpack(t.Context(), &archive, root, &Limits{Bytes: int64(archive.Len()), Files: 10}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if got.Config.ID != "id" || got.Config.RootfsImageRef != "image" || got.Spec.Process.Args[0] != "x" {
		t.Errorf("read back is %+v", got)
	}
	if pages, err := root.ReadFile(ImagesDir + "/pages-1.img"); err != nil || string(pages) != "pages" {
		t.Errorf("the image is %q, %v", pages, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archiveOf(f, file("config.dump", "{}"), file("checkpoint/a", "x")))
	f.Add(archiveOf(f, entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "checkpoint", Linkname: "/"}, ""}, file("checkpoint/a", "x")))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := unpack(t, data, enough); err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("the error is %v", err)
		}
	})
}

// TestReadNamesTheFirstFile: of several that cannot be read it is always the same one.
func TestReadNamesTheFirstFile(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 20 {
		if _, err := Read(root); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "config.dump") {
			t.Fatalf("error %v, want one that names config.dump", err)
		}
	}
}
