package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// recorder is a testing.TB that notes how a test would have ended. As in the real one, a
// skip or failure ends the goroutine's function, here by a panic that outcome catches.
type recorder struct {
	testing.TB
}

type ended struct{ how, why string }

func (recorder) Helper()                        {}
func (recorder) Skip(a ...any)                  { panic(ended{"skip", fmt.Sprint(a...)}) }
func (recorder) Skipf(format string, a ...any)  { panic(ended{"skip", fmt.Sprintf(format, a...)}) }
func (recorder) Fatal(a ...any)                 { panic(ended{"fail", fmt.Sprint(a...)}) }
func (recorder) Fatalf(format string, a ...any) { panic(ended{"fail", fmt.Sprintf(format, a...)}) }

func outcome(test func(testing.TB)) (how string) {
	defer func() {
		if e, ok := recover().(ended); ok {
			how = e.how
		}
	}()
	test(recorder{})
	return "ran"
}

// TestRequireRoot holds in both tiers: as root nothing is skipped.
func TestRequireRoot(t *testing.T) {
	want := "ran"
	if os.Geteuid() != 0 {
		want = "skip"
	}
	if got := outcome(func(tb testing.TB) { RequireRoot(tb) }); got != want {
		t.Errorf("RequireRoot as uid %d: %s, want %s", os.Geteuid(), got, want)
	}
}

func TestRequireBinMissing(t *testing.T) {
	t.Setenv(BinEnv, t.TempDir())
	want := "fail"
	if os.Geteuid() != 0 {
		want = "skip"
	}
	if got := outcome(func(tb testing.TB) { RequireBin(tb, "runc") }); got != want {
		t.Errorf("RequireBin of a missing program as uid %d: %s, want %s", os.Geteuid(), got, want)
	}
}

func TestRequireBinNotExecutable(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(BinEnv, dir)
	if err := os.WriteFile(filepath.Join(dir, "runc"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := outcome(func(tb testing.TB) { RequireBin(tb, "runc") }); got != "fail" {
		t.Errorf("RequireBin of a file without mode x: %s, want fail", got)
	}
}

func TestFindBin(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, "cni", "bridge")
	if err := os.Mkdir(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := findBin(dir, "cni/bridge"); err != nil || got != want {
		t.Errorf("findBin = %q, %v, want %q", got, err, want)
	}
	if _, err := findBin(dir, "cni"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("findBin of a directory: %v, want an error other than not found", err)
	}
	if _, err := findBin(dir, "runc"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("findBin of what is missing: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestCheckout(t *testing.T) {
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join("internal", "testkit"); filepath.Join(root, want) != mustGetwd(t) {
		t.Errorf("checkout = %q, and this is %q", root, mustGetwd(t))
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
