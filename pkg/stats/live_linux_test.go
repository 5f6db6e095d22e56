package stats

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// burnEnv makes the test program one that uses what is measured.
const burnEnv = "STATS_TEST_BURN"

// burnMemory is what it holds, in bytes.
const burnMemory = 64 << 20

func TestMain(m *testing.M) {
	if os.Getenv(burnEnv) != "" {
		burn()
		return
	}
	os.Exit(m.Run())
}

// burn waits for a line, so that all of it happens in the cgroup, and uses memory, files and the
// processor until its input ends.
func burn() {
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	memory := make([]byte, burnMemory)
	for i := range memory {
		memory[i] = byte(i)
	}
	go func() {
		for sum := byte(0); ; {
			for _, b := range memory {
				sum += b
			}
		}
	}()
	if _, err := io.WriteString(os.Stdout, "burning\n"); err != nil {
		return
	}
	_, _ = in.ReadByte()
}

// liveCgroup makes a cgroup in all hierarchies of this machine and returns its directories.
func liveCgroup(t *testing.T) (name string, unified bool, dirs map[string]string) {
	t.Helper()
	testkit.RequireRoot(t)
	name = fmt.Sprintf("/stats-test-%d", os.Getpid())
	const root = "/sys/fs/cgroup"
	if cgroups.Mode() == cgroups.Unified {
		group, err := cgroup2.NewManager(root, name, &cgroup2.Resources{
			Memory: &cgroup2.Memory{}, CPU: &cgroup2.CPU{}, IO: &cgroup2.IO{}, Pids: &cgroup2.Pids{Max: 1000},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, filepath.Join(root, name), group.Delete) })
		dir := filepath.Join(root, name)
		return name, true, map[string]string{"cpuacct": dir, "memory": dir, "pids": dir, "unified": dir}
	}
	dirs = map[string]string{}
	for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "unified"} {
		dir := filepath.Join(root, controller, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("without %s: %v", controller, err)
			continue
		}
		dirs[controller] = dir
		t.Cleanup(func() { removeCgroup(t, dir, func() error { return os.Remove(dir) }) })
	}
	return name, false, dirs
}

// removeCgroup tries again while the kernel still counts a process that has ended.
func removeCgroup(t *testing.T, dir string, remove func() error) {
	var err error
	for range 1000 {
		if err = remove(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("remove %s: %v", dir, err)
}

// burnIn runs the program in the cgroup until the test ends.
func burnIn(t *testing.T, dirs map[string]string) (pid int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), burnEnv+"=1", "GOGC=off")
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
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the program printed %q: %v", line, err)
	}
	return cmd.Process.Pid
}

// within holds a figure to a tenth of what it should be.
func within(t *testing.T, what string, got, want uint64) {
	t.Helper()
	if diff := float64(got) - float64(want); diff > float64(want)/10 || diff < -float64(want)/10 {
		t.Errorf("%s is %d, want about %d", what, got, want)
	}
}

func fileNumber(t *testing.T, dir, file string) uint64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.Fields(string(data))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// statNumber reads one line of memory.stat.
func statNumber(t *testing.T, dir, key string) uint64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data))
	i := slices.Index(fields, key)
	if i < 0 {
		t.Fatalf("memory.stat has no %s", key)
	}
	n, err := strconv.ParseUint(fields[i+1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// cpuNanos reads the kernel's counter in the way of neither the library nor the package.
func cpuNanos(t *testing.T, unified bool, dirs map[string]string) uint64 {
	t.Helper()
	if !unified {
		return fileNumber(t, dirs["cpuacct"], "cpuacct.usage")
	}
	data, err := os.ReadFile(filepath.Join(dirs["unified"], "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	var usec uint64
	if _, err := fmt.Sscanf(string(data), "usage_usec %d", &usec); err != nil {
		t.Fatal(err)
	}
	return usec * 1000
}

func TestLiveCgroup(t *testing.T) {
	name, unified, dirs := liveCgroup(t)
	pid := burnIn(t, dirs)
	r, err := NewReader(ReaderOptions{Unified: unified, Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	first := mustRead(t, r, name)
	time.Sleep(2 * time.Second)
	before, pressed := cpuNanos(t, unified, dirs), someWaited(dirs["unified"])
	got := mustRead(t, r, name)
	if after := cpuNanos(t, unified, dirs); got.CPU.Usage < before || got.CPU.Usage > after {
		t.Errorf("processor time is %d, want it from %d to %d", got.CPU.Usage, before, after)
	}
	if got.CPU.Usage <= first.CPU.Usage || got.CPU.User == 0 {
		t.Errorf("processor time went from %+v to %+v", first.CPU, got.CPU)
	}
	usage := map[bool]string{false: "memory.usage_in_bytes", true: "memory.current"}[unified]
	within(t, "memory", got.Memory.Usage, fileNumber(t, dirs["memory"], usage))
	anonymous := map[bool]string{false: "total_rss", true: "anon"}[unified]
	within(t, "anonymous memory", got.Memory.RSS, statNumber(t, dirs["memory"], anonymous))
	if got.Memory.RSS < burnMemory || got.Memory.WorkingSet < burnMemory {
		t.Errorf("memory is %+v, want at least the %d bytes that the program holds", *got.Memory, burnMemory)
	}
	if got.Processes != 1 || got.Tasks == nil || got.Tasks.Current < 2 {
		t.Errorf("%d processes and tasks %+v, want 1 process with some", got.Processes, got.Tasks)
	}
	tasks := func() uint64 { return fileNumber(t, dirs["pids"], "pids.current") }
	for first := uint64(0); first != tasks(); { // the program's runtime may just start another thread
		first = tasks()
		got.Tasks = mustRead(t, r, name).Tasks
	}
	within(t, "tasks", got.Tasks.Current, tasks())
	pids, err := r.PIDs(name)
	if err != nil || len(pids) != 1 || pids[0] != pid {
		t.Errorf("processes are %v (%v), want %d", pids, err, pid)
	}
	checkLivePressure(t, got, dirs["unified"], pressed)
	if files := readFiles(t.Context(), pid, pids); files.Descriptors < 3 || files.Limit == 0 {
		t.Errorf("open files are %+v, want at least the standard three", files)
	}
}

// someWaited is how long something in the cgroup has waited for a processor, in nanoseconds; zero where the kernel does not tell.
func someWaited(dir string) uint64 {
	data, _ := os.ReadFile(filepath.Join(dir, "cpu.pressure"))
	_, total, _ := strings.Cut(strings.SplitN(string(data), "\n", 2)[0], "total=")
	micros, _ := strconv.ParseUint(total, 10, 64)
	return micros * 1000
}

// checkLivePressure wants pressure where the kernel has its files, from what it was before to what it is now.
func checkLivePressure(t *testing.T, got Reading, dir string, before uint64) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "cpu.pressure")); dir == "" || err != nil {
		if got.CPU.Pressure != nil {
			t.Errorf("pressure is %+v on a kernel without", got.CPU.Pressure)
		}
		return
	}
	if got.CPU.Pressure == nil || got.Memory.Pressure == nil || got.IO.Pressure == nil {
		t.Fatalf("pressure of the processor is %v, of memory %v, of devices %v", got.CPU.Pressure, got.Memory.Pressure, got.IO.Pressure)
	}
	if total, now := got.CPU.Pressure.Some.Total, someWaited(dir); total < before || total > now {
		t.Errorf("pressure of the processor is %d ns, the file says %d and then %d", total, before, now)
	}
}

// BenchmarkRead is what one container costs each time that kubelet asks.
func BenchmarkRead(b *testing.B) {
	for tree, unified := range trees {
		b.Run(tree, func(b *testing.B) {
			r, err := NewReader(ReaderOptions{Root: filepath.Join("testdata", tree), Unified: unified, Clock: clock.RealClock{}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Read("/kubepods/pod1/c1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
