package engine_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/mounts"
)

// lab is a containerd with an engine on it. Its tasks run in the host's user namespace.
type lab struct {
	*engine.Engine
	t          testing.TB
	containerd *labnode.Containerd
	registry   *labRegistry
	cgroup     string
	stays      map[string]bool // names of things that may outlive the test in containerd
}

// newLab starts a containerd, an empty registry, and an engine.
func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, containerd: nodetest.StartContainerd(t), registry: newLabRegistry(t)}
	dir := filepath.Dir(l.containerd.Address)
	l.cgroup = "/" + filepath.Base(dir)
	l.checkLeaks(leaks.Scope{
		Namespaces: here{},
		StateDirs:  []string{l.containerd.State, filepath.Join(dir, "s")}, // s: sockets of shims
		Cgroup:     l.cgroup,
		Mark:       filepath.Base(dir),
	})
	l.Engine = l.newEngine(engineOptions())
	return l
}

// here is the view of the test's own namespaces.
type here struct{}

func (here) ProcDir() string                      { return "/proc/self" }
func (here) Do(f func() error) error              { return f() }
func (here) Output(cmd *exec.Cmd) ([]byte, error) { return cmd.Output() }

// checkLeaks fails the test for what it left behind.
func (l *lab) checkLeaks(scope leaks.Scope) {
	l.t.Helper()
	conn := l.dial()
	scope.Containerd, scope.ContainerdNamespace = conn, labnode.Namespace
	scope.Daemons = []int{l.containerd.PID()}
	before, err := scope.Take(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		defer conn.Close()
		scope.Daemons = append(scope.Daemons, l.containerd.PID())
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		more, err := scope.Check(ctx, before, 5*time.Second)
		if err != nil {
			l.t.Error(err)
		}
		for _, thing := range more {
			if !l.stays[thing.Name] {
				l.t.Errorf("left behind: %s", thing)
			}
		}
	})
}

// in returns the lab for a subtest: what it makes from now on ends with that.
func (l *lab) in(t testing.TB) *lab {
	sub := *l
	sub.t = t
	return &sub
}

func engineOptions() engine.Options { return engine.Options{PullProgressTimeout: time.Minute} }

// newEngine makes one more engine on the lab's containerd.
func (l *lab) newEngine(opts engine.Options) *engine.Engine {
	l.t.Helper()
	opts.Address, opts.Namespace, opts.RegistryConfigPath = l.containerd.Address, labnode.Namespace, l.registry.CertsDir
	e, err := engine.New(opts)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return e
}

// imageRecords returns the labels of all image records by name.
func (l *lab) imageRecords() map[string]map[string]string {
	l.t.Helper()
	conn := l.dial()
	defer conn.Close()
	resp, err := imagesapi.NewImagesClient(conn).List(nodetest.InContainerd(l.t.Context()), &imagesapi.ListImagesRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	records := make(map[string]map[string]string)
	for _, img := range resp.GetImages() {
		records[img.GetName()] = img.GetLabels()
	}
	return records
}

// contents names the blobs, downloads, snapshots and leases that containerd holds.
func (l *lab) contents() []string {
	l.t.Helper()
	conn := l.dial()
	defer conn.Close()
	return nodetest.Stored(l.t, conn)
}

// collect forces a garbage collection.
func (l *lab) collect() {
	l.t.Helper()
	conn := l.dial()
	defer conn.Close()
	nodetest.CollectGarbage(l.t, conn)
}

func (l *lab) dial() *grpc.ClientConn {
	l.t.Helper()
	conn, err := l.containerd.Dial()
	if err != nil {
		l.t.Fatal(err)
	}
	return conn
}

// pull pushes an image of the catalogue, pulls it and returns its id.
func (l *lab) pull(name string) string {
	l.t.Helper()
	l.registry.push(l.t, name)
	return l.pullPushed(name)
}

func (l *lab) pullPushed(name string) string {
	l.t.Helper()
	id, err := l.Pull(l.t.Context(), image.PullRequest{Ref: l.registry.Ref(name)})
	if err != nil {
		l.t.Fatal(err)
	}
	return id
}

// box is a container of the lab: snapshot, rootfs mount and record.
type box struct {
	l     *lab
	id    string
	group string
	root  string // of the OCI runtime's state; empty is the shim's own
	spec  *specs.Spec
}

func newID() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// newBox prepares a container that runs args from the image. It is removed when the test ends, the
// rootfs and all.
func (l *lab) newBox(imageID, group string, args ...string) *box {
	l.t.Helper()
	b := l.prepareBox(imageID, group, args...)
	b.record()
	return b
}

// prepareBox is newBox without the container record, so that the specification can be changed.
func (l *lab) prepareBox(imageID, group string, args ...string) *box {
	l.t.Helper()
	b := &box{l: l, id: newID(), group: group}
	made, err := l.PrepareSnapshot(l.t.Context(), container.SnapshotRequest{Key: b.id, ImageID: imageID})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(b.remove)
	root := l.mount(made)
	b.spec = taskSpec(root, filepath.Join(l.cgroup, b.id), group, args)
	return b
}

func (b *box) record() {
	b.l.t.Helper()
	if err := b.l.CreateRecord(b.l.t.Context(), container.EngineRecord{
		ID: b.id, SnapshotKey: b.id, Runtime: "io.containerd.runc.v2", BinaryName: "runc", Spec: b.spec,
		Labels: map[string]string{"lab": "yes"}, Options: container.RuntimeOptions{Root: b.root},
	}); err != nil {
		b.l.t.Fatal(err)
	}
}

// another makes the record of one more container on the root filesystem of b.
func (b *box) another(args ...string) (*box, error) {
	other := &box{l: b.l, id: newID(), group: b.group}
	other.spec = taskSpec(b.spec.Root.Path, filepath.Join(b.l.cgroup, other.id), b.group, args)
	return other, b.l.CreateRecord(context.Background(), container.EngineRecord{
		ID: other.id, Runtime: "io.containerd.runc.v2", BinaryName: "runc", Spec: other.spec,
	})
}

// mount mounts what a snapshotter returned until the test ends.
func (l *lab) mount(made []mounts.Mount) string {
	l.t.Helper()
	root, err := os.MkdirTemp("/tmp", "engine-root-")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := errors.Join(mount.Unmount(root), os.Remove(root)); err != nil {
			l.t.Errorf("unmount rootfs: %v", err)
		}
	})
	for _, m := range made {
		if err := mount.Mount(m.Source, root, m.Type, strings.Join(m.Options, ",")); err != nil {
			l.t.Fatalf("mount %+v: %v", m, err)
		}
	}
	return root
}

// remove takes the container away, however far it got.
func (b *box) remove() {
	b.l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = b.l.KillTask(ctx, b.id, uint32(syscall.SIGKILL), true)
	_, _ = b.l.WaitTask(ctx, b.id)
	_, terr := b.l.DeleteTask(ctx, b.group, b.id)
	for what, err := range map[string]error{
		"task":     terr,
		"record":   b.l.DeleteRecord(ctx, b.id),
		"snapshot": b.l.RemoveSnapshot(ctx, "", b.id),
	} {
		if err != nil && !errdefs.IsNotFound(err) {
			b.l.t.Errorf("remove %s of container: %v", what, err)
		}
	}
}

// start creates the task with these pipes and starts it.
func (b *box) start(io container.Stdio) {
	b.l.t.Helper()
	pid, err := b.l.CreateTask(b.l.t.Context(), b.group, b.id, io)
	if err != nil {
		b.l.t.Fatal(err)
	}
	if pid == 0 {
		b.l.t.Fatal("the task has no pid")
	}
	if err := b.l.StartTask(b.l.t.Context(), b.id); err != nil {
		b.l.t.Fatal(err)
	}
}

// run starts the task, waits for its end, deletes it, and returns exit code and standard output.
func (b *box) run() (uint32, string) {
	b.l.t.Helper()
	out := newFIFO(b.l.t)
	b.start(container.Stdio{Stdout: out.path})
	exit, err := b.l.WaitTask(b.l.t.Context(), b.id)
	if err != nil {
		b.l.t.Fatal(err)
	}
	if _, err := b.l.DeleteTask(b.l.t.Context(), b.group, b.id); err != nil {
		b.l.t.Fatal(err)
	}
	return exit.Code, out.read(b.l.t)
}

// fifo is a FIFO that is read until its last writer has closed it.
type fifo struct {
	path string
	done chan struct{}
	text string // what was read, once done is closed
}

func newFIFO(t testing.TB) *fifo {
	t.Helper()
	f := &fifo{path: filepath.Join(t.TempDir(), "pipe"), done: make(chan struct{})}
	if err := syscall.Mkfifo(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.done)
		r, err := os.Open(f.path) // waits for a writer
		if err != nil {
			return
		}
		defer r.Close()
		text, _ := io.ReadAll(r)
		f.text = string(text)
	}()
	t.Cleanup(func() {
		if w, err := os.OpenFile(f.path, os.O_RDWR, 0); err == nil {
			_ = w.Close() // a writer that comes and goes, should there have been none
		}
	})
	return f
}

// read waits for the end of the output.
func (f *fifo) read(t testing.TB) string {
	t.Helper()
	select {
	case <-f.done:
		return f.text
	case <-time.After(20 * time.Second):
		t.Fatal("the output has no end")
		return ""
	}
}

// taskSpec is a small specification in namespaces of its own, the user namespace and the network apart.
func taskSpec(root, cgroup, group string, args []string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_MKNOD"}
	return &specs.Spec{
		Version:     specs.Version,
		Annotations: map[string]string{"io.kubernetes.cri.sandbox-id": group},
		Root:        &specs.Root{Path: root},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
		},
	}
}
