package hostids

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Ranges that nothing on a node uses: the last ones that a pod can have.
var (
	first  = idpool.Range{Start: 0xFFF00000, Length: idpool.Unit}
	second = idpool.Range{Start: 0xFFF10000, Length: idpool.Unit}
)

// run starts a program that waits until the test ends.
func run(t *testing.T, attr *syscall.SysProcAttr, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = attr
	attr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead
		_ = cmd.Wait()
	})
	return cmd
}

// inNamespace is a process that is root in a user namespace that maps r.
func inNamespace(r idpool.Range) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(r.Start), Size: int(r.Length)}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
}

func take(t *testing.T) *Look {
	t.Helper()
	look, err := Take(t.Context(), "/proc")
	if err != nil {
		t.Fatal(err)
	}
	return look
}

func TestTakeSeesNamespacesAndCredentials(t *testing.T) {
	testkit.RequireRoot(t)
	cmd := run(t, inNamespace(first), "sleep", "100")
	look := take(t)
	n, ok := look.Mapping(first)
	if !ok || n.Process.PID != cmd.Process.Pid || len(n.UIDs) != 1 || n.UIDs[0] != first || len(n.GIDs) != 1 || n.GIDs[0] != first {
		t.Errorf("the namespace is seen as %+v, %t, want %s of process %d", n, ok, first, cmd.Process.Pid)
	}
	if h, ok := look.Holding(first); !ok || h.ID != first.Start || h.Process.PID != cmd.Process.Pid {
		t.Errorf("its root is seen as %+v, %t", h, ok)
	}
	if n, ok := look.Mapping(second); ok {
		t.Errorf("%s is mapped by %+v", second, n)
	}
	if h, ok := look.Holding(second); ok {
		t.Errorf("an id of %s is held by %+v", second, h)
	}
}

// TestTakeSeesNestedNamespaces: the inner map is of the outer namespace's ids, and yet the host's are seen.
func TestTakeSeesNestedNamespaces(t *testing.T) {
	testkit.RequireRoot(t)
	run(t, inNamespace(first), "unshare", "--user", "--map-root-user", "sleep", "100")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, n := range take(t).Namespaces {
			if len(n.UIDs) == 1 && n.UIDs[0] == (idpool.Range{Start: first.Start, Length: 1}) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the nested namespace was not seen")
		}
	}
}

func TestTakeSeesCredentialsInTheHostsNamespace(t *testing.T) {
	testkit.RequireRoot(t)
	for name, cred := range map[string]*syscall.Credential{
		"uid":                 {Uid: second.Start + 5},
		"gid":                 {Gid: second.Start + 5},
		"supplementary group": {Groups: []uint32{second.Start + 5}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := run(t, &syscall.SysProcAttr{Credential: cred}, "sleep", "100")
			if h, ok := take(t).Holding(second); !ok || h.ID != second.Start+5 || h.Process.PID != cmd.Process.Pid {
				t.Errorf("seen as %+v, %t", h, ok)
			}
		})
	}
}

func TestTakeLeavesOutZombies(t *testing.T) {
	testkit.RequireRoot(t)
	cmd := run(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: second.Start}}, "true")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := parseStatus(text); err != nil || c.dead {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process does not end")
		}
	}
	if h, ok := take(t).Holding(second); ok {
		t.Errorf("a zombie holds an id: %+v", h)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, "/proc"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestTakeOfWhatIsNoProc(t *testing.T) {
	if look, err := Take(t.Context(), t.TempDir()); err == nil {
		t.Errorf("an empty directory gives %+v and no error", look)
	}
}

// layersOf has those that it lists.
type layersOf []idpool.Range

func (l layersOf) LayerRanges(context.Context) ([]idpool.Range, error) { return l, nil }

func TestWitness(t *testing.T) {
	testkit.RequireRoot(t)
	w := NewWitness(WitnessOptions{Proc: "/proc", Layers: layersOf{second}})
	released := time.Now()
	if got := w.Traces(first, released); got != idpool.TraceUnknown {
		t.Errorf("before the first look: %s, want unknown", got)
	}
	cmd := run(t, inNamespace(first), "sleep", "100")
	look := func() {
		t.Helper()
		if err := w.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if got := w.Traces(first, released); got != idpool.TraceNamespace|idpool.TraceCredentials {
		t.Errorf("of a running process: %s, want namespace and credentials", got)
	}
	if got := w.Traces(second, released); got != idpool.TraceLayers {
		t.Errorf("of a layer: %s", got)
	}
	if got := w.Traces(idpool.Range{Start: first.Start - idpool.Unit, Length: idpool.Unit}, released); got != 0 {
		t.Errorf("of a neighbour: %s, want none", got)
	}
	if got := w.Traces(first, time.Now()); got != idpool.TraceUnknown {
		t.Errorf("of what was released after the look: %s, want unknown", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	look()
	if got := w.Traces(first, released); got != 0 {
		t.Errorf("after the process's end: %s, want none", got)
	}
}

// TestWitnessLookThatFailsKeepsTheLastOne, for what was seen is still true.
func TestWitnessLookThatFailsKeepsTheLastOne(t *testing.T) {
	w := NewWitness(WitnessOptions{Proc: "/proc", Layers: layersOf{second}})
	if err := w.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := w.Last()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Look(ctx); err == nil || w.Last() != before {
		t.Errorf("a look that fails: %v; the last one was replaced: %t", err, w.Last() != before)
	}
}

func BenchmarkTake(b *testing.B) {
	for b.Loop() {
		if _, err := Take(b.Context(), "/proc"); err != nil {
			b.Fatal(err)
		}
	}
}
