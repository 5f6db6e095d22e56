package stats

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// noon is when everything is read in tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func reader(t *testing.T, root string, unified bool) *Reader {
	t.Helper()
	r, err := NewReader(ReaderOptions{Root: root, Unified: unified, Clock: clocktesting.NewFakePassiveClock(noon)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// golden compares v with a file of testdata.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// trees are the recorded files, by directory below testdata.
var trees = map[string]bool{"hybrid": false, "unified": true}

func TestReadRecordedCgroups(t *testing.T) {
	for tree, unified := range trees {
		r := reader(t, filepath.Join("testdata", tree), unified)
		for name, cgroup := range map[string]string{"container": "/kubepods/pod1/c1", "pod": "/kubepods/pod1"} {
			t.Run(tree+" "+name, func(t *testing.T) {
				reading, err := r.Read(cgroup)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, tree+"-"+name+".json", struct {
					Reading Reading
					Limits  Limits
				}{reading, r.Limits(cgroup)})
			})
		}
	}
}

// copyTree gives a test a tree to change.
func copyTree(t *testing.T, tree string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), tree)
	if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", tree))); err != nil {
		t.Fatal(err)
	}
	return root
}

func remove(t *testing.T, root string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s matches %d files: %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func mustRead(t *testing.T, r *Reader, cgroup string) Reading {
	t.Helper()
	reading, err := r.Read(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	return reading
}

// A kernel that does not account swap lacks its files in every cgroup, and its line of memory.stat.
func TestVersion1WithoutSwapAndKernelMemory(t *testing.T) {
	root := copyTree(t, "hybrid")
	for _, module := range []string{"memsw", "kmem"} {
		remove(t, root, "memory/memory."+module+".*", "memory/*/*/memory."+module+".*", "memory/*/*/*/memory."+module+".*")
	}
	stat := filepath.Join(root, "memory/kubepods/pod1/c1/memory.stat")
	if err := os.WriteFile(stat, []byte("total_rss 4096\ntotal_inactive_file 99999999\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, reader(t, root, false), "/kubepods/pod1/c1")
	if got.Swap != nil || got.Memory == nil || got.Memory.RSS != 4096 || got.Memory.Kernel != 0 {
		t.Errorf("read memory %+v and swap %+v, want RSS 4096 and no swap", got.Memory, got.Swap)
	}
	if got.Memory.WorkingSet != 0 {
		t.Errorf("working set is %d with more inactive files than memory, want 0", got.Memory.WorkingSet)
	}
}

// A legacy machine has no hierarchy of version 2, and an old kernel counts disks without those below.
func TestVersion1WithoutPressureAndRecursiveFiles(t *testing.T) {
	root := copyTree(t, "hybrid")
	remove(t, root, "unified/*/*/*/*.pressure", "blkio/*/*/*/*_recursive")
	own := filepath.Join(root, "blkio/kubepods/pod1/c1/blkio.throttle.io_service_bytes")
	if err := os.WriteFile(own, []byte("8:0 Read 7\n8:0 Write 9\nTotal 16\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, reader(t, root, false), "/kubepods/pod1/c1")
	want := IO{Devices: []DeviceIO{{Major: 8, ReadBytes: 7, WriteBytes: 9}}}
	if diff := cmp.Diff(want, got.IO); diff != "" || got.CPU.Pressure != nil || got.Memory.Pressure != nil {
		t.Errorf("io (-want +got):\n%s\npressure %v, %v", diff, got.CPU.Pressure, got.Memory.Pressure)
	}
}

func TestVersion2WithoutControllers(t *testing.T) {
	root := copyTree(t, "unified")
	remove(t, root, "*/*/*/memory.*", "*/*/*/pids.*", "*/*/*/io.*", "*/*/*/cpu.pressure")
	got := mustRead(t, reader(t, root, true), "/kubepods/pod1/c1")
	if got.Memory != nil || got.Swap != nil || got.Tasks != nil || got.CPU.Pressure != nil || got.IO.Pressure != nil {
		t.Errorf("read %+v of a cgroup that accounts the processor alone", got)
	}
	if got.CPU.Usage == 0 || got.Processes == 0 {
		t.Errorf("read %+v, want processor time and processes", got)
	}
}

func TestVersion2WithoutSwap(t *testing.T) {
	root := copyTree(t, "unified")
	remove(t, root, "*/*/*/memory.swap.*")
	if got := mustRead(t, reader(t, root, true), "/kubepods/pod1/c1"); got.Swap != nil || got.Memory == nil {
		t.Errorf("read memory %+v and swap %+v, want memory alone", got.Memory, got.Swap)
	}
}

func TestGoneCgroup(t *testing.T) {
	for tree, unified := range trees {
		r := reader(t, filepath.Join("testdata", tree), unified)
		if _, err := r.Read("/kubepods/pod2"); !errors.Is(err, ErrGone) {
			t.Errorf("%s: Read returns %v, want ErrGone", tree, err)
		}
		if _, err := r.PIDs("/kubepods/pod2"); !errors.Is(err, ErrGone) {
			t.Errorf("%s: PIDs returns %v, want ErrGone", tree, err)
		}
		if got := r.Limits("/kubepods/pod2"); got != (Limits{}) {
			t.Errorf("%s: Limits returns %+v, want none", tree, got)
		}
	}
}

// A container with a service manager has its processes in cgroups of their own.
func TestProcessesOfNestedCgroups(t *testing.T) {
	root := copyTree(t, "unified")
	nested := filepath.Join(root, "kubepods/pod1/c1/system.slice/x.service")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	before := mustRead(t, reader(t, root, true), "/kubepods/pod1").Processes
	for dir, pids := range map[string]string{nested: "71\n72\n", filepath.Dir(nested): "70\n"} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pids), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustRead(t, reader(t, root, true), "/kubepods/pod1").Processes; got != before+3 {
		t.Errorf("the pod has %d processes, want %d", got, before+3)
	}
}

func TestNewReaderWantsCgroups(t *testing.T) {
	if _, err := NewReader(ReaderOptions{Root: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("NewReader accepts a directory that does not exist")
	}
}

func TestAvailable(t *testing.T) {
	for _, tc := range []struct {
		limit, used, want uint64
		ok                bool
	}{
		{limit: 100, used: 30, want: 70, ok: true},
		{limit: 100, used: 130, want: 0, ok: true}, // the kernel may charge beyond the limit
		{limit: Unlimited, used: 30},
	} {
		if got, ok := (Memory{Limit: tc.limit, WorkingSet: tc.used}).Available(); got != tc.want || ok != tc.ok {
			t.Errorf("memory %+v: available %d, %v", tc, got, ok)
		}
		if got, ok := (Swap{Limit: tc.limit, Usage: tc.used}).Available(); got != tc.want || ok != tc.ok {
			t.Errorf("swap %+v: available %d, %v", tc, got, ok)
		}
	}
}
