package checkpoint

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestCopyDiffShiftsOwnersAndAddsWhiteouts(t *testing.T) {
	in := archiveOf(t,
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "etc/x", Uid: 1007, Gid: 1008, Size: 1, Mode: 0o4755, Uname: "who"}, "x"},
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh.gone"}, ""},
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/link", Linkname: "/../../anywhere"}, ""},
	)
	var out bytes.Buffer
	shift := func(id int) int { return max(id-1000, 0) }
	if err := CopyDiff(t.Context(), &out, bytes.NewReader(in), Rewrite{ID: shift, Deleted: []string{"/usr/bin/old"}}); err != nil {
		t.Fatal(err)
	}
	var names []string
	r := tar.NewReader(&out)
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, hdr.Name)
		if hdr.Name == "etc/x" && (hdr.Uid != 7 || hdr.Gid != 8 || hdr.Mode != 0o4755 || hdr.Uname != "") {
			t.Errorf("the file is %+v", hdr)
		}
	}
	if want := "[etc/x etc/.wh.gone etc/link usr/bin/.wh.old]"; want != fmt.Sprint(names) {
		t.Errorf("entries are %v, want %s", names, want)
	}
}

func TestCopyDiffRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in      []byte
		deleted []string
	}{
		"a name that leaves":     {in: archiveOf(t, file("../x", ""))},
		"a detour that leaves":   {in: archiveOf(t, file("a/../../x", ""))},
		"a hard link out":        {in: archiveOf(t, entry{tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "../../etc/shadow"}, ""})},
		"an unknown type":        {in: archiveOf(t, entry{tar.Header{Typeflag: 'Z', Name: "a"}, ""})},
		"no archive":             {in: bytes.Repeat([]byte("x"), 1024)},
		"a deletion that leaves": {in: archiveOf(t), deleted: []string{"../x"}},
		"a deletion of all":      {in: archiveOf(t), deleted: []string{"/"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := CopyDiff(t.Context(), io.Discard, bytes.NewReader(c.in), Rewrite{Deleted: c.deleted})
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestReadPod(t *testing.T) {
	dir := t.TempDir()
	pod := Pod{Name: "p", Namespace: "ns", UID: "u", Runtime: "runc", Containers: map[string]string{"c": "id"}}
	if err := WritePod(dir, pod); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := ReadPod(root); !errors.Is(err, ErrInvalid) {
		t.Errorf("without the container's archive the error is %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ArchiveName("id")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPod(root)
	if err != nil || got.Name != "p" || got.Containers["c"] != "id" || got.Runtime != "runc" {
		t.Errorf("read back is %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"other version": `{"version":2,"annotations":{"org.criu.checkpoint.engine.name":"userns-shim"}}`,
		"other engine":  `{"version":1,"annotations":{"org.criu.checkpoint.engine.name":"other"}}`,
		"no JSON":       `{`,
		"a path":        `{"version":1,"containers":{"c":"../id"},"annotations":{"org.criu.checkpoint.engine.name":"userns-shim"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, PodFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPod(root); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
