package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// holdEnv makes the test binary open the database that it names, say so, and
// hold it until its standard input ends.
const holdEnv = "STATE_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		db, err := Open(Options{Path: path})
		fmt.Fprintln(os.Stdout, "opened", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		if db != nil {
			err = db.Close()
		}
		if err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestOpenCreates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "state.db")
	db := open(t, Options{Path: path})
	mustUpdate(t, db, func(tx *Tx) error { return tx.Raw("b").Put("k", []byte("v")) })
	for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, path: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Path: path})
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v after the next open", info.Mode(), err)
	}
	err := again.View(func(tx *Tx) error {
		if v, err := tx.Raw("b").Get("k"); string(v) != "v" {
			t.Errorf("Get = %q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOpenAfterKilledCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state[1].db") // no pattern
	for _, left := range []string{"state[1].db.new-1", "state[1].db.new-2"} {
		if err := os.WriteFile(filepath.Join(dir, left), []byte("half a page"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, Options{Path: path})
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "state[1].db" {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

// TestOpenTogether lets several create one database: one gets it, the others
// hear that it is in use.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "state.db")
	var mu sync.Mutex
	var opened []*DB
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			db, err := Open(Options{Path: path, Timeout: 100 * time.Millisecond})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				opened = append(opened, db)
			} else if !errors.Is(err, ErrLocked) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(opened) != 1 {
		t.Fatalf("%d opened it", len(opened))
	}
	if err := opened[0].Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "opened <nil>\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	start := time.Now()
	_, err = Open(Options{Path: path, Timeout: 150 * time.Millisecond})
	var locked *LockedError
	if !errors.As(err, &locked) || !errors.Is(err, ErrLocked) {
		t.Fatalf("Open = %v, want a LockedError", err)
	}
	if took := time.Since(start); took < 150*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	want := fmt.Sprintf("process %d (%.15s)", cmd.Process.Pid, filepath.Base(exe))
	if locked.Holder != want || !strings.Contains(err.Error(), path) {
		t.Errorf("error %q, want it to name %q and the file", err, want)
	}
	// It lets go while somebody waits.
	time.AfterFunc(50*time.Millisecond, func() { _ = in.Close() })
	open(t, Options{Path: path, Timeout: 10 * time.Second})
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesOtherSchemas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, Options{Path: path})
	mustUpdate(t, db, func(tx *Tx) error { return tx.Raw(ownBucket).Put(schemaKey, []byte("2")) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Path: path}); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), path) {
		t.Errorf("a later schema: %v", err)
	}
}

func TestOpenReportsFileErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Options{Path: dir}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Path: filepath.Join(file, "state.db")}); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("a file for a directory: %v", err)
	}
}
