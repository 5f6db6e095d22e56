package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// fakeCRIU notes what is asked of it, and fails the step named in fail. It says containers by name.
type fakeCRIU struct {
	mu     sync.Mutex
	fail   string
	steps  []string
	frozen map[string]bool
	names  map[string]string
	onDump func()
	cannot bool
	owners []int // of the files in a diff
}

func (f *fakeCRIU) note(step, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, step+" "+f.names[id])
	if f.fail == step {
		return fmt.Errorf("%s: %w", step, errInjected)
	}
	return nil
}

func (f *fakeCRIU) PauseTask(_ context.Context, id string) error {
	f.frozen[id] = true
	return f.note("pause", id)
}

func (f *fakeCRIU) ResumeTask(_ context.Context, id string) error {
	delete(f.frozen, id)
	return f.note("resume", id)
}

func (f *fakeCRIU) DumpTask(_ context.Context, d Dump) error {
	if len(f.frozen) != len(f.names) {
		return errors.New("not all are frozen")
	}
	if f.onDump != nil {
		f.onDump()
	}
	if err := os.WriteFile(filepath.Join(d.Images, "inventory.img"), nil, 0o600); err != nil {
		return err
	}
	return f.note("dump", d.ID)
}

func (f *fakeCRIU) RestoreTask(context.Context, string, Stdio, Dump) (uint32, error) {
	return 0, errInjected
}

func (f *fakeCRIU) CanCheckpoint(context.Context, string, string) (bool, error) {
	return !f.cannot, nil
}

func (f *fakeCRIU) ReadDiff(_ context.Context, _, id string, w io.Writer) error {
	out := tar.NewWriter(w)
	for i, owner := range f.owners {
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Uid: owner, Gid: owner}); err != nil {
			return err
		}
	}
	return errors.Join(f.note("diff", id), out.Close())
}

func (f *fakeCRIU) ApplyDiff(context.Context, string, string, io.Reader) error { return nil }
func (f *fakeCRIU) ReadLayers(context.Context, string, func(io.Reader) error) error {
	return nil
}

// newCheckpointNode runs containers a and b in a pod of the host's user namespace.
func newCheckpointNode(t *testing.T) (*node, *fakeCRIU, []string) {
	t.Helper()
	n := newNode(t)
	n.sb.Range, n.sb.Pins.User, n.sb.Spec.Namespaces.User = nil, "", nil
	n.recordSandbox(t, n.sb)
	criu := &fakeCRIU{frozen: map[string]bool{}, names: map[string]string{}}
	n.opts.Checkpoints, n.opts.Diffs = criu, criu
	n.restart(t)
	if err := os.MkdirAll(n.podFiles(n.sb).Shm, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.sb.Spec.LogDirectory, 0o700); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, name := range []string{"a", "b"} {
		id := n.mustStart(t, name)
		criu.names[id] = name
		ids = append(ids, id)
	}
	return n, criu, ids
}

var someStatus = CheckpointOptions{Status: func(rec Record) any { return rec.ID }}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	got, err := names(dir)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s has %q, %v, want %q", dir, got, err, want)
	}
}

// TestCheckpointPodFreezesAllFirst holds CRI's order.
func TestCheckpointPodFreezesAllFirst(t *testing.T) {
	n, criu, ids := newCheckpointNode(t)
	dir := t.TempDir()
	if err := n.CheckpointPod(t.Context(), n.sb, ids, dir, someStatus); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, id := range slices.Sorted(slices.Values(ids)) {
		order = append(order, criu.names[id])
	}
	want := []string{}
	for _, step := range []string{"pause", "dump+diff", "resume"} {
		for _, name := range order {
			for part := range strings.SplitSeq(step, "+") {
				want = append(want, part+" "+name)
			}
		}
	}
	if !slices.Equal(criu.steps, want) {
		t.Errorf("the steps are %q, want %q", criu.steps, want)
	}
	files := []string{checkpoint.PodFile}
	for _, id := range ids {
		files = append(files, checkpoint.ArchiveName(id))
	}
	slices.Sort(files)
	wantFiles(t, dir, files...)
	wantFiles(t, filepath.Join(n.opts.RootDir, "checkpoints"))
}

// TestCheckpointPodThawsAllAndLeavesNothing fails each step, and lets the time be over during a dump.
func TestCheckpointPodThawsAllAndLeavesNothing(t *testing.T) {
	for _, step := range []string{"pause", "dump", "diff", "deadline"} {
		t.Run(step, func(t *testing.T) {
			n, criu, ids := newCheckpointNode(t)
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			want := errInjected
			criu.fail = step
			if step == "deadline" {
				criu.onDump, want = cancel, context.Canceled
			}
			if err := n.CheckpointPod(ctx, n.sb, ids, dir, someStatus); !errors.Is(err, want) {
				t.Errorf("the error is %v", err)
			}
			if len(criu.frozen) > 0 {
				t.Errorf("frozen are %v", criu.frozen)
			}
			wantFiles(t, dir)
			wantFiles(t, filepath.Join(n.opts.RootDir, "checkpoints"))
		})
	}
}

func TestCheckpointSaysWhatIsMissing(t *testing.T) {
	n, criu, ids := newCheckpointNode(t)
	location := filepath.Join(t.TempDir(), "c.tar")
	criu.names = map[string]string{ids[0]: "a"}
	criu.fail = "dump"
	err := n.Checkpoint(t.Context(), ids[0], location, someStatus)
	if !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "PATH of containerd") {
		t.Errorf("without a log of CRIU's the error is %v", err)
	}
	log := "(00.1) Warn  (a.c:1): no matter\n(00.2)  7: Error (criu/x.c:12): first (here): it\n(00.3) Error (criu/x.c:13): second\n"
	criu.onDump = func() {
		if err := os.WriteFile(filepath.Join(n.checkpointDir(ids[0]), "archive", checkpoint.DumpLog), []byte(log), 0o600); err != nil {
			t.Error(err)
		}
	}
	err = n.Checkpoint(t.Context(), ids[0], location, someStatus)
	if !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "first (here): it; second") {
		t.Errorf("with a log of CRIU's the error is %v", err)
	}
	criu.cannot = true
	err = n.Checkpoint(t.Context(), ids[0], location, someStatus)
	if !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "runc does not support") {
		t.Errorf("with a runtime that cannot the error is %v", err)
	}
}

// TestRecoverThawsWhatACheckpointLeft restarts in the middle of one.
func TestRecoverThawsWhatACheckpointLeft(t *testing.T) {
	n, criu, ids := newCheckpointNode(t)
	dir := t.TempDir()
	left := &captured{id: ids[0], archive: filepath.Join(dir, "c.tar")}
	if err := n.beginCapture(left); err != nil {
		t.Fatal(err)
	}
	criu.frozen[ids[0]] = true
	unknown := n.restoreDir(strings.Repeat("f", 64))
	err := errors.Join(os.WriteFile(left.partial(), nil, 0o600), os.MkdirAll(filepath.Join(unknown, "checkpoint"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(criu.frozen) > 0 {
		t.Errorf("frozen are %v", criu.frozen)
	}
	wantFiles(t, dir)
	wantFiles(t, filepath.Join(n.opts.RootDir, "checkpoints"))
	wantFiles(t, filepath.Join(n.opts.RootDir, "restores"))
	if rec, err := n.Get(ids[0]); err != nil || rec.State != StateRunning {
		t.Errorf("the container is %s, %v", rec.State, err)
	}
}

// TestCheckpointPodInAUserNamespaceIsRefused holds that no checkpoint is made that cannot be restored.
func TestCheckpointPodInAUserNamespaceIsRefused(t *testing.T) {
	n, _, ids := newCheckpointNode(t)
	other := newNode(t).sb
	other.ID = n.sb.ID
	if err := n.CheckpointPod(t.Context(), other, ids, t.TempDir(), someStatus); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("the error is %v", err)
	}
}

// TestRestoreRefuses holds what is known before anything is made.
func TestRestoreRefuses(t *testing.T) {
	n, criu, _ := newCheckpointNode(t)
	spec := containerSpec("c")
	spec.Image = filepath.Join(t.TempDir(), "missing.tar")
	if _, err := n.Create(t.Context(), n.sb, spec); !errors.Is(err, checkpoint.ErrInvalid) && !errors.Is(err, ErrInvalid) {
		t.Errorf("a missing archive is %v", err)
	}
	inUserNS := newNode(t).sb
	if _, err := n.Create(t.Context(), inUserNS, spec); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("in a pod with a user namespace it is %v", err)
	}
	criu.cannot = true
	if _, err := n.Create(t.Context(), n.sb, spec); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("with a runtime that cannot it is %v", err)
	}
	img := n.engine.images["busybox"]
	img.Annotations = map[string]string{"org.criu.checkpoint.container.name": "x"}
	n.engine.images["checkpoint"] = img
	spec.Image = "checkpoint"
	if _, err := n.Create(t.Context(), n.sb, spec); !errors.Is(err, ErrCheckpoint) || errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an image that is a checkpoint is %v", err)
	}
	wantFiles(t, filepath.Join(n.opts.RootDir, "restores"))
}

// TestCheckpointShiftsOwnersBack holds that the owners in an archive are those that the pod sees, whatever
// ids its user namespace has on the host.
func TestCheckpointShiftsOwnersBack(t *testing.T) {
	n, criu, ids := newCheckpointNode(t)
	n.sb.Range = &idpool.Range{Start: 1 << 20, Length: idpool.Unit}
	criu.names = map[string]string{ids[0]: "a"}
	criu.owners = []int{1 << 20, 1<<20 + 7, 1<<20 + 65535, 1<<20 + 65536, 5}
	location := filepath.Join(t.TempDir(), "c.tar")
	if err := n.Checkpoint(t.Context(), ids[0], location, someStatus); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(location)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	outer := tar.NewReader(f)
	for {
		hdr, err := outer.Next()
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Name == checkpoint.DiffFile {
			break
		}
	}
	var got []int
	for inner := tar.NewReader(outer); ; {
		hdr, err := inner.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Uid != hdr.Gid {
			t.Errorf("owner of %s is %d:%d", hdr.Name, hdr.Uid, hdr.Gid)
		}
		got = append(got, hdr.Uid)
	}
	if want := []int{0, 7, 65535, 1<<20 + 65536, 5}; !slices.Equal(got, want) {
		t.Errorf("owners are %d, want %d", got, want)
	}
}
