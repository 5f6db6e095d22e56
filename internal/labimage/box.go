package labimage

import (
	"bytes"
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoBox says that the machine has neither a static busybox nor a Go tool to build a box with.
var ErrNoBox = errors.New("no static busybox (Debian package busybox-static) and no go tool to build a box")

// busyboxPath is where Debian's busybox-static puts it.
const busyboxPath = "/bin/busybox"

//go:embed labbox/main.go
var labboxSource []byte

// Box is one static program that acts as the applet by whose name it is called.
type Box struct {
	Program []byte
	Applets []string
	Shell   bool // whether sh is among the applets
}

// FindBox reads the machine's static busybox, or builds the small Go box where there is none.
// The error wraps ErrNoBox where neither is possible.
func FindBox(ctx context.Context) (Box, error) {
	box, err := ReadBusybox(ctx, busyboxPath)
	if err == nil {
		return box, nil
	}
	built, buildErr := BuildBox(ctx)
	if buildErr != nil {
		return Box{}, fmt.Errorf("%w: %w; %w", ErrNoBox, err, buildErr)
	}
	return built, nil
}

// ReadBusybox reads a busybox and asks it for its applets. A dynamically linked one is an error:
// its interpreter would be missing in the image.
func ReadBusybox(ctx context.Context, path string) (Box, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return Box{}, fmt.Errorf("read busybox: %w", err)
	}
	if err := checkStatic(program); err != nil {
		return Box{}, fmt.Errorf("busybox %s: %w", path, err)
	}
	list, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return Box{}, fmt.Errorf("list applets of %s: %w", path, err)
	}
	return newBox(program, list), nil
}

// BuildBox builds the Go box with the machine's go tool; the source needs nothing but the standard library.
func BuildBox(ctx context.Context) (Box, error) {
	dir, err := os.MkdirTemp("", "labbox-")
	if err != nil {
		return Box{}, fmt.Errorf("make build directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), labboxSource, 0o644); err != nil {
		return Box{}, fmt.Errorf("write box source: %w", err)
	}
	out := filepath.Join(dir, "labbox")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, "main.go")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if msg, err := build.CombinedOutput(); err != nil {
		return Box{}, fmt.Errorf("build box: %w: %s", err, bytes.TrimSpace(msg))
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return Box{}, fmt.Errorf("read built box: %w", err)
	}
	list, err := exec.CommandContext(ctx, out, "--list").Output()
	if err != nil {
		return Box{}, fmt.Errorf("list applets of the built box: %w", err)
	}
	return newBox(program, list), nil
}

func newBox(program, list []byte) Box {
	box := Box{Program: program}
	for field := range bytes.FieldsSeq(list) {
		box.Applets = append(box.Applets, string(field))
		box.Shell = box.Shell || string(field) == "sh"
	}
	return box
}

// checkStatic refuses a program that asks for a dynamic loader.
func checkStatic(program []byte) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("parse ELF file: %w", err)
	}
	for _, prog := range file.Progs {
		if prog.Type == elf.PT_INTERP {
			return errors.New("is linked dynamically")
		}
	}
	return nil
}
