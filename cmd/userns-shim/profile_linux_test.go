package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadProfile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int{"good": maxProfile, "large": maxProfile + 1} {
		if err := os.WriteFile(at(name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := readProfile(at("good")); err != nil || len(text) != maxProfile {
		t.Errorf("a file of the most bytes: %d, %v", len(text), err)
	}
	for _, path := range []string{at("large"), at("fifo"), at("none"), dir, "/dev/zero"} {
		done := make(chan error, 1)
		go func() {
			_, err := readProfile(path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s is read", path)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s blocks", path)
		}
	}
}
