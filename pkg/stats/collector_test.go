package stats

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"
)

// noLayers is a snapshotter that knows none.
type noLayers struct{}

func (noLayers) ReadLayer(context.Context, string, string) (Layer, error) {
	return Layer{}, errors.New("no such snapshot")
}

// world is a collector over recorded cgroups, with a clock to set.
func world(t *testing.T, tree string, layers LayerReader) (*Collector, *clocktesting.FakePassiveClock, string) {
	t.Helper()
	clk := clocktesting.NewFakePassiveClock(noon)
	root := copyTree(t, tree)
	r, err := NewReader(ReaderOptions{Root: root, Unified: trees[tree], Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Reader: r, Layers: layers, Clock: clk, Logger: klog.Background()})
	t.Cleanup(c.Close)
	return c, clk, root
}

// ctr is the recorded container, started ten seconds ago.
func ctr() Container {
	return Container{ID: "c1", Cgroup: "/kubepods/pod1/c1", Started: noon.Add(-10 * time.Second), PID: os.Getpid(), Snapshotter: "overlayfs", Snapshot: "c1"}
}

func TestContainers(t *testing.T) {
	c, clk, root := world(t, "unified", &fakeLayers{})
	ended, gone := Container{ID: "c2", Snapshotter: "overlayfs", Snapshot: "c2"}, ctr()
	gone.ID, gone.Cgroup = "c3", "/kubepods/pod1/c3"
	got := c.Containers(t.Context(), []Container{ctr(), ended, gone})

	if got[0].Err != nil || got[0].Reading == nil || got[0].Layer == nil || got[0].NanoCores == nil {
		t.Fatalf("a container that runs uses %+v", got[0])
	}
	if want := got[0].Reading.CPU.Usage / 10; *got[0].NanoCores != want {
		t.Errorf("it uses %d ns a second, want %d: all its time in ten seconds", *got[0].NanoCores, want)
	}
	if got[1].Err != nil || got[1].Reading != nil || got[1].NanoCores != nil || got[1].Layer == nil {
		t.Errorf("one that does not run uses %+v, want only a layer", got[1])
	}
	if !errors.Is(got[2].Err, ErrGone) || got[2].Reading != nil {
		t.Errorf("one that is gone uses %+v, want ErrGone", got[2])
	}

	clk.SetTime(noon.Add(4 * time.Second))
	writeFile(t, root, "kubepods/pod1/c1/cpu.stat", "usage_usec 0\n")
	if got := c.Containers(t.Context(), []Container{ctr()})[0]; got.NanoCores != nil {
		t.Errorf("a counter that went back has the rate %d", *got.NanoCores)
	}
	clk.SetTime(noon.Add(6 * time.Second))
	writeFile(t, root, "kubepods/pod1/c1/cpu.stat", "usage_usec 1000000\n")
	if got := c.Containers(t.Context(), []Container{ctr()})[0]; got.NanoCores == nil || *got.NanoCores != 500_000_000 {
		t.Errorf("a second of processor time in two has the rate %v", got.NanoCores)
	}
}

func writeFile(t *testing.T, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPodWithACgroup(t *testing.T) {
	c, clk, root := world(t, "unified", noLayers{})
	pod := Pod{ID: "p1", Cgroup: "/kubepods/pod1", Containers: []Container{ctr()}}
	got := c.Pods(t.Context(), []Pod{pod})[0]
	if got.Err != nil || !got.Own || len(got.Containers) != 1 {
		t.Fatalf("the pod uses %+v", got)
	}
	if got.Reading.CPU.Usage == got.Containers[0].Reading.CPU.Usage || got.Reading.Memory.Pressure == nil {
		t.Errorf("the pod's figures %+v are not its cgroup's", got.Reading)
	}
	if got.NanoCores == nil || *got.NanoCores != *got.Containers[0].NanoCores {
		t.Errorf("at first the rate is %v, want its containers'", got.NanoCores)
	}

	clk.SetTime(noon.Add(2 * time.Second))
	writeFile(t, root, "kubepods/pod1/cpu.stat", "usage_usec 3000000000\n")
	if got := c.Pods(t.Context(), []Pod{pod})[0]; got.NanoCores == nil || *got.NanoCores < 1_000_000_000_000 {
		t.Errorf("later the rate is %v, want the cgroup's", got.NanoCores)
	}
}

func TestPodsWithoutACgroupSumUp(t *testing.T) {
	c, _, _ := world(t, "hybrid", noLayers{})
	other := ctr()
	other.ID = "c2"
	ended := Container{ID: "c3"}
	got := c.Pods(t.Context(), []Pod{
		{ID: "p1", Containers: []Container{ctr(), other, ended}},
		{ID: "p2", Cgroup: "/kubepods/pod2"}, // nothing was started in it yet
	})
	one := got[0].Containers[0].Reading
	if sum := got[0].Reading; sum.CPU.Usage != 2*one.CPU.Usage || sum.Memory.WorkingSet != 2*one.Memory.WorkingSet ||
		sum.Processes != 2*one.Processes || sum.Memory.Limit != Unlimited || got[0].Own {
		t.Errorf("the pod uses %+v, want twice %+v", sum, one)
	}
	if rate := got[0].NanoCores; rate == nil || *rate != 2**got[0].Containers[0].NanoCores {
		t.Errorf("the pod's rate is %v, want twice its container's", rate)
	}
	if empty := got[1]; empty.Err != nil || empty.Reading.CPU.Usage != 0 || !empty.Reading.At.Equal(noon) || empty.Own {
		t.Errorf("a pod without containers uses %+v", empty)
	}
}

func TestPodWithoutNetwork(t *testing.T) {
	c, _, _ := world(t, "hybrid", noLayers{})
	pod := Pod{ID: "p1", Cgroup: "/kubepods/pod1", NetNS: filepath.Join(t.TempDir(), "gone")}
	if got := c.Pods(t.Context(), []Pod{pod})[0]; !errors.Is(got.Err, ErrGone) {
		t.Errorf("a pod that is being stopped uses %+v, want ErrGone", got)
	}
}

func TestDetails(t *testing.T) {
	c, _, root := world(t, "unified", layerAt{t.TempDir()})
	writeFile(t, root, "kubepods/pod1/c1/io.stat", "1048000:3 rbytes=1 wbytes=2 rios=3 wios=4\n")
	usage := c.Containers(t.Context(), []Container{ctr()})[0]
	got, err := c.Details(t.Context(), ctr(), usage)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Disks) != 1 || got.Disks[0].Name != "1048000:3" || got.Disks[0].Writes != 4 {
		t.Errorf("disks are %+v, want a device without a name", got.Disks)
	}
	if fs := got.Filesystem; fs == nil || fs.Device == "" || fs.Bytes == 0 || fs.InodesFree == 0 {
		t.Errorf("the layer's filesystem is %+v", fs)
	}
	if got.Limits.CPUQuota != 20000 || got.Files.Limit == 0 {
		t.Errorf("limits are %+v and %+v", got.Limits, got.Files)
	}
	gone := ctr()
	gone.Cgroup = "/kubepods/gone"
	if _, err := c.Details(t.Context(), gone, usage); !errors.Is(err, ErrGone) {
		t.Errorf("details of a container that is gone: %v, want ErrGone", err)
	}
}

// layerAt is a snapshotter whose layers are all in one directory.
type layerAt struct{ dir string }

func (l layerAt) ReadLayer(context.Context, string, string) (Layer, error) {
	return Layer{Mountpoint: l.dir, Bytes: 1, At: noon}, nil
}
