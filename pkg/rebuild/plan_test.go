package rebuild

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// base is the first id of the extents in tests, and start a time.
const base = 2113798144

var start = time.Unix(1000, 0).UTC()

func slot(n int) idpool.Range {
	return idpool.Range{Start: base + uint32(n)*idpool.Unit, Length: idpool.Unit}
}

func input() Input {
	return Input{
		Sandboxes: map[string]sandbox.Record{}, Containers: map[string]container.Record{},
		Tasks: map[string]container.TaskState{}, Layers: map[string]idpool.Range{}, Look: &hostids.Look{},
		Extents: []idpool.Range{{Start: base, Length: 16 * idpool.Unit}}, BootID: "boot", Now: start.Add(time.Hour),
		Pins: func(id string) Pins { return Pins{User: "/" + id + "/user", Network: "/" + id + "/net"} },
	}
}

func (in Input) addSandbox(id, pod string, r *idpool.Range) {
	in.Sandboxes[id] = sandbox.Record{
		ID: id, Range: r, Phase: sandbox.PhaseReady, CreatedAt: start.Add(time.Duration(len(in.Sandboxes)) * time.Second),
		Spec: sandbox.Spec{Metadata: sandbox.Metadata{Name: pod, Namespace: "ns", UID: "uid-" + pod}},
	}
}

// stored is what containerd has of a container of the sandbox s1.
func stored(id, name string, r idpool.Range) container.StoredRecord {
	const sandboxID, pod = "s1", "a"
	return container.StoredRecord{
		ID: id, Group: sandboxID, Snapshotter: "overlayfs", Image: "img", CreatedAt: start,
		Labels: map[string]string{
			container.LabelPodName: pod, container.LabelPodNamespace: "ns", container.LabelPodUID: "uid-" + pod, container.LabelContainerName: name,
		},
		Spec: &specs.Spec{
			Annotations: map[string]string{ocispec.AnnotationSandboxID: sandboxID},
			Linux:       &specs.Linux{CgroupsPath: "/pods/" + pod + "/" + id, UIDMappings: []specs.LinuxIDMapping{{HostID: r.Start, Size: r.Length}}},
		},
	}
}

// written writes the plan and returns the ledger, the sandboxes and the containers of the new database.
func written(t *testing.T, p Plan) ([]idpool.Allocation, []sandbox.Record, []container.Record) {
	t.Helper()
	db, err := state.Open(state.Options{Path: filepath.Join(t.TempDir(), "db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	opts := idpool.Options{Extents: input().Extents}
	if err := p.Write(db, opts); err != nil {
		t.Fatal(err)
	}
	sandboxes, errS := sandbox.OpenTable(db, nil)
	containers, errC := container.OpenTable(db, nil)
	var pool *idpool.Pool
	errP := db.View(func(tx *state.Tx) (err error) {
		pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), opts)
		return err
	})
	if err := errors.Join(errS, errC, errP); err != nil {
		t.Fatal(err)
	}
	return pool.List(), sandboxes.List(), containers.List()
}

func ledgerText(list []idpool.Allocation) string {
	var out []string
	for _, a := range list {
		name := string(a.Pod) + a.Reservation
		out = append(out, strings.Join([]string{name, string(a.State), strings.Join(a.Sandboxes, "+")}, " "))
	}
	return strings.Join(out, "; ")
}

func TestRecordsAreTakenAsTheyWere(t *testing.T) {
	in := input()
	one, two := slot(1), slot(2)
	in.addSandbox("s1", "a", &one)
	in.addSandbox("s2", "b", nil)
	in.addSandbox("s3", "c", &two)
	in.Sandboxes["s3"] = func(rec sandbox.Record) sandbox.Record { rec.Spec.IDs.Reservation = "shared"; return rec }(in.Sandboxes["s3"])
	in.Containers["c1"] = container.Record{ID: "c1", SandboxID: "s1", State: container.StateRunning, PID: 7, Reason: "r"}
	in.Stored = []container.StoredRecord{stored("c1", "main", one)}
	p := Make(in)
	if len(p.Notes)+len(p.Resting) > 0 {
		t.Errorf("notes %q, resting %v", p.Notes, p.Resting)
	}
	ledger, sandboxes, containers := written(t, p)
	if got := ledgerText(ledger); got != "uid-a allocated s1; shared reserved s3" {
		t.Errorf("the ledger is %s", got)
	}
	if len(sandboxes) != 3 || !state.Same(sandboxes[0], in.Sandboxes["s1"]) || len(containers) != 1 || !state.Same(containers[0], in.Containers["c1"]) {
		t.Errorf("sandboxes %+v, containers %+v", sandboxes, containers)
	}
}

func TestRecordsFromTheNode(t *testing.T) {
	in := input()
	in.Damaged = []error{errors.New("record x: checksum")}
	init := stored("s1", "", slot(1))
	init.CreatedAt = start.Add(-time.Second)
	in.Stored = []container.StoredRecord{
		stored("c1", "main", slot(1)), stored("c2", "main", slot(1)), init,
		{ID: "odd", Spec: &specs.Spec{}},
	}
	in.Tasks["c1"] = container.TaskState{PID: 9, Status: "running"}
	p := Make(in)
	if len(p.Notes) != 3 || !strings.Contains(p.Notes[0], "checksum") {
		t.Errorf("notes %q", p.Notes)
	}
	ledger, sandboxes, containers := written(t, p)
	if got := ledgerText(ledger); got != "uid-a allocated s1" || ledger[0].Range != slot(1) {
		t.Errorf("the ledger is %s", got)
	}
	s := sandboxes[0]
	if len(sandboxes) != 1 || s.ID != "s1" || s.Phase != sandbox.PhaseStopped || !s.NetworkUp || !s.ProcessUp || s.Pins.User != "/s1/user" ||
		s.Spec.Metadata.Name != "a" || s.Spec.Labels[container.LabelPodUID] != "uid-a" || s.Spec.CgroupParent != "/pods/a" || !s.CreatedAt.Equal(start.Add(-time.Second)) || s.BootID != "boot" {
		t.Errorf("sandboxes %+v", sandboxes)
	}
	if len(containers) != 2 || containers[0].State != container.StateRunning || containers[0].PID != 9 ||
		containers[1].State != container.StateExited || containers[1].Spec.Metadata.Attempt != 1 {
		t.Errorf("containers %+v", containers)
	}
}

func TestRecordsFromTheNodeAfterAReboot(t *testing.T) {
	in := input()
	in.Pins = func(string) Pins { return Pins{} }
	c := stored("c1", "main", slot(1))
	c.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/var/run/netns/x"}}
	in.Stored = []container.StoredRecord{c}
	_, sandboxes, containers := written(t, Make(in))
	if len(sandboxes) != 1 || !sandboxes[0].NetworkUp || sandboxes[0].Spec.Namespaces.Network != sandbox.ModePod || containers[0].State != container.StateExited {
		t.Errorf("sandboxes %+v, containers %+v", sandboxes, containers)
	}
	c.Spec.Linux.Namespaces[0].Path = ""
	if _, sandboxes, _ := written(t, Make(in)); sandboxes[0].NetworkUp {
		t.Errorf("a pod in the host's network: %+v", sandboxes)
	}
}

// TestRecordsFromPins: pods with namespaces, and neither a copy of their record nor a container. Where CNI was told of one it keeps its
// name, by which kubelet finds it.
func TestRecordsFromPins(t *testing.T) {
	in := input()
	one, wide := slot(1), idpool.Range{Start: slot(4).Start, Length: 2 * idpool.Unit}
	in.addSandbox("s0", "copied", &one)
	in.Stored = []container.StoredRecord{stored("c1", "main", slot(2))} // of s1
	pins := Pins{User: "/p/user", Network: "/p/net", IPC: "/p/ipc"}
	in.Pinned = []Pinned{
		{ID: "s0", Pins: pins, Range: &one, Made: start},
		{ID: "s1", Pins: pins, Made: start},
		{ID: "s2", Pins: pins, Range: &wide, Made: start.Add(time.Minute), Pod: sandbox.Metadata{Name: "p", Namespace: "ns", UID: "uid-p"}},
		{ID: "s3", Pins: Pins{Network: "/p/net"}, Made: start.Add(2 * time.Minute)},
	}
	p := Make(in)
	ledger, sandboxes, _ := written(t, p)
	if got := ledgerText(ledger); got != "uid-copied allocated s0; uid-a allocated s1; uid-p allocated s2" || ledger[2].Range != wide {
		t.Errorf("the ledger is %s, %v", got, ledger)
	}
	if len(sandboxes) != 4 || len(p.Resting) != 0 {
		t.Fatalf("sandboxes %+v, resting %v", sandboxes, p.Resting)
	}
	named, nameless := sandboxes[2], sandboxes[3]
	if named.Phase != sandbox.PhaseStopped || named.Pins != pins || !named.NetworkUp || named.Spec.Metadata.Name != "p" || named.BootID != "boot" ||
		named.Spec.Namespaces.IPC != sandbox.ModePod || named.Spec.Namespaces.User == nil || named.Spec.Labels[container.LabelPodUID] != "uid-p" {
		t.Errorf("of a pod that CNI knows: %+v", named)
	}
	if nameless.Range != nil || nameless.Spec.Namespaces.User != nil || nameless.Spec.Namespaces.IPC != sandbox.ModeNode || nameless.Spec.Metadata.UID != "unknown-s3" {
		t.Errorf("of a pod that nobody knows: %+v", nameless)
	}
	if len(p.Notes) != 3 || !strings.Contains(p.Notes[1], "s2 of pod ns/p") || !strings.Contains(p.Notes[2], "crictl rmp s3") {
		t.Errorf("notes %q", p.Notes)
	}
}

// TestConflictsAreNoted: the first pod keeps the range, the other its record.
func TestConflictsAreNoted(t *testing.T) {
	in := input()
	one := slot(1)
	in.addSandbox("s1", "a", &one)
	in.addSandbox("s2", "b", &one)
	p := Make(in)
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "s1 and s2") {
		t.Errorf("notes %q", p.Notes)
	}
	ledger, sandboxes, _ := written(t, p)
	if got := ledgerText(ledger); got != "uid-a allocated s1" || len(sandboxes) != 2 {
		t.Errorf("the ledger is %s, %d sandboxes", got, len(sandboxes))
	}
}

func TestWhatIsTracedRests(t *testing.T) {
	in := input()
	one := slot(1)
	in.addSandbox("s1", "a", &one)
	process := hostids.Process{PID: 5, Command: "sh"}
	beyond := idpool.Range{Start: 64 * idpool.Unit, Length: idpool.Unit}
	inner := idpool.Range{Start: slot(4).Start + 10, Length: 5} // nested
	in.Look = &hostids.Look{
		Namespaces: []hostids.Namespace{
			{UIDs: []idpool.Range{one}, Process: process},
			{UIDs: []idpool.Range{slot(2)}, GIDs: []idpool.Range{slot(2)}, Process: process},
			{UIDs: []idpool.Range{beyond}, Process: process},
			{UIDs: []idpool.Range{inner}, Process: process},
		},
		Holders: []hostids.Holder{{ID: slot(5).Start + 99, Process: process}, {ID: one.Start, Process: process}},
	}
	in.Layers = map[string]idpool.Range{"k1": slot(6), "k2": one}
	p := Make(in)
	var got []idpool.Range
	for _, r := range p.Resting {
		got = append(got, r.Range)
	}
	if want := []idpool.Range{slot(2), slot(4), slot(5), slot(6)}; !slices.Equal(got, want) {
		t.Errorf("resting %v, want %v", p.Resting, want)
	}
	ledger, _, _ := written(t, p)
	if got := ledgerText(ledger); got != "uid-a allocated s1; unknown quarantined ; unknown quarantined ; unknown quarantined ; unknown quarantined " {
		t.Errorf("the ledger is %q", got)
	}
}
