package selftest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// writeELF makes a program file that has nothing but headers of segments.
func writeELF(t *testing.T, segments ...elf.ProgType) string {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Ehsize: 64, Phentsize: 56, Phnum: uint16(len(segments)), Phoff: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var file bytes.Buffer
	parts := []any{header}
	for _, kind := range segments {
		parts = append(parts, elf.Prog64{Type: uint32(kind)})
	}
	for _, part := range parts {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, file.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOwnImageHoldsTheProgram pulls as a runtime does while the test runs.
func TestOwnImageHoldsTheProgram(t *testing.T) {
	node := newFakeNode()
	opts := node.serve(t)
	opts.Image, opts.Program = "", writeELF(t, elf.PT_LOAD)
	var pulled string
	var content []byte
	node.before = func(method string) error {
		if method == "CreateContainer" && pulled == "" {
			for ref := range node.images {
				pulled = ref
			}
			content = programOf(t, pulled)
		}
		return nil
	}
	r := mustRun(t, opts)
	if failed, skipped := outcome(r); len(failed)+len(skipped) > 0 {
		t.Errorf("failed are %v, skipped %v", failed, skipped)
	}
	want, err := os.ReadFile(opts.Program)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content, want) {
		t.Errorf("the image %s has a program of %d bytes at %s, want this one of %d", pulled, len(content), programPath, len(want))
	}
	if len(node.images) > 0 {
		t.Errorf("left are the images %v", node.images)
	}
}

// programOf reads the program out of an image in a registry.
func programOf(t *testing.T, ref string) []byte {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(parsed)
	if err != nil {
		t.Fatal(err)
	}
	files := mutate.Extract(img)
	defer files.Close()
	archive := tar.NewReader(files)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if "/"+header.Name == programPath {
			content, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
	}
}

func TestProgramThatCannotBeAnImage(t *testing.T) {
	notELF := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(notELF, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{
		"dynamic": writeELF(t, elf.PT_LOAD, elf.PT_INTERP),
		"no ELF":  notELF,
		"missing": filepath.Join(t.TempDir(), "none"),
	} {
		t.Run(name, func(t *testing.T) {
			opts := newFakeNode().serve(t)
			opts.Image, opts.Program = "", program
			if failed, _ := outcome(mustRun(t, opts)); !slices.Equal(failed, []string{"image"}) {
				t.Errorf("failed are %v, want image", failed)
			}
		})
	}
}
