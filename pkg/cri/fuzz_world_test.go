package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
	"github.com/userns-shim/userns-shim/pkg/stats"
	"github.com/userns-shim/userns-shim/pkg/stream"
)

// fuzzWorld is the CRI server with the real managers, database and id pool, on a fuzzEngine and a fuzzHost. It
// serves many inputs, each of which has to leave it as it was.
type fuzzWorld struct {
	dirs       fuzzDirs
	engine     *fuzzEngine
	host       *fuzzHost
	db         *state.DB
	pool       *idpool.Pool
	sandboxes  *sandbox.Manager
	containers *container.Manager
	conn       *grpc.ClientConn
	log        fuzzLog
}

// fuzzLog keeps what the server logs as errors, the stack of a panic above all, until the input is judged.
type fuzzLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *fuzzLog) add(_, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

// take returns the lines and forgets them.
func (l *fuzzLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// fuzzDirs are where things may be: requests name paths of host and log. Nothing may ever be in outside, to which
// a link in log leads, nor may anything new be in the working directory.
type fuzzDirs struct {
	base, state, root, cgroups, host, log, outside string

	working []string // what is in the working directory
}

// fuzzSlots is how many pods with a user namespace fit: few, so that inputs exhaust the pool.
const fuzzSlots = 4

func newFuzzWorld(tb testing.TB) *fuzzWorld {
	tb.Helper()
	testkit.RequireRoot(tb) // a sandbox's files are given to its pod, and /dev/shm is mounted
	w := &fuzzWorld{dirs: newFuzzDirs(tb)}
	w.engine, w.host = newFuzzEngine(w.dirs.cgroups), newFuzzHost()
	var err error
	if w.db, err = state.Open(state.Options{Path: filepath.Join(w.dirs.root, "state.db")}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.db.Close() })
	err = w.db.View(func(tx *state.Tx) error {
		w.pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), idpool.Options{
			Extents:       []idpool.Range{{Start: 1 << 20, Length: fuzzSlots * idpool.Unit}},
			Claims:        idpool.ClaimsPermissive,
			QuarantineAge: -1,
		})
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	w.build(tb, funcr.New(w.log.add, funcr.Options{Verbosity: -1}))
	return w
}

func newFuzzDirs(tb testing.TB) fuzzDirs {
	tb.Helper()
	base := memoryDir(tb)
	at := func(name string) string {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		return dir
	}
	d := fuzzDirs{
		base: base, state: at("state"), root: at("root"), cgroups: at("cgroups"),
		host: at("host"), log: at("log"), outside: at("outside"),
	}
	d.working = mustList(tb, ".")
	d.reset(tb)
	return d
}

// memoryDir is a temporary directory in memory where the host has one: every call commits to the database, and
// a disk makes inputs ten times slower. What is durable is for others to test.
func memoryDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "userns-shim-fuzz-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// reset empties what belongs to kubelet: it makes and removes the directories of volumes and logs.
func (d fuzzDirs) reset(tb testing.TB) {
	tb.Helper()
	for _, dir := range []string{d.host, d.log, d.cgroups} {
		for _, name := range mustList(tb, dir) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				tb.Fatal(err)
			}
		}
	}
	for _, dir := range []string{d.log, filepath.Join(d.log, "p0"), filepath.Join(d.log, "p1")} {
		err := os.MkdirAll(dir, 0o755)
		err = errors.Join(err, os.Symlink(d.outside, filepath.Join(dir, "link")), os.Symlink(d.outside+"/x.log", filepath.Join(dir, "link.log")))
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.host, "file"), nil, 0o600); err != nil {
		tb.Fatal(err)
	}
}

func mustList(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

func (w *fuzzWorld) build(tb testing.TB, logger klog.Logger) {
	tb.Helper()
	var events Events
	w.sandboxes = w.newSandboxes(tb, logger, events.Publish)
	w.containers = w.newContainers(tb, logger, events.Publish)
	images, err := image.New(image.Options{Store: w.engine, DefaultSnapshotter: "overlayfs"})
	if err != nil {
		tb.Fatal(err)
	}
	reader, err := stats.NewReader(stats.ReaderOptions{Root: w.dirs.cgroups, Unified: true, Clock: clock.RealClock{}})
	if err != nil {
		tb.Fatal(err)
	}
	collector := stats.New(stats.Options{Reader: reader, Layers: w.engine, Clock: clock.RealClock{}, Logger: logger})
	tb.Cleanup(collector.Close)
	streaming, err := stream.NewServer(klog.NewContext(context.Background(), logger), stream.ServerOptions{Address: "127.0.0.1:0", Runtime: noStreams{}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := streaming.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	around := Interceptors{Logger: logger, Observe: func(string, codes.Code, time.Duration) {}, Ready: func() error { return nil }}
	server := grpc.NewServer(around.ServerOptions()...)
	Register(server, Options{
		Sandboxes: w.sandboxes, Containers: w.containers, Images: images, Node: fuzzNode{},
		Streaming: streaming, Stats: collector, Events: &events, Version: "fuzz",
		Capacity: func() []Capacity { return nil },
	})
	w.conn = serveOnSocket(tb, server)
	// The goroutines of the connection are there before the first input.
	if err := w.conn.Invoke(tb.Context(), "/runtime.v1.RuntimeService/Version", wire(nil), new(wire), grpc.ForceCodec(wireCodec{})); err != nil {
		tb.Fatal(err)
	}
}

func (w *fuzzWorld) newSandboxes(tb testing.TB, logger klog.Logger, notify func(sandbox.Event)) *sandbox.Manager {
	tb.Helper()
	m, err := sandbox.New(sandbox.Options{
		DB: w.db, Pool: w.pool, Namespaces: w.host, Network: w.host, Process: fuzzProcess{w.host}, Labels: fuzzLabels{},
		StateDir: w.dirs.state, BootID: "boot", Clock: clock.RealClock{}, Logger: logger, Notify: notify,
		UserNamespaces: map[string]sandbox.UserNamespacePolicy{
			"runc": sandbox.UserNamespacesOptIn, "always": sandbox.UserNamespacesAlways, "never": sandbox.UserNamespacesNever,
		},
		IDs:            map[string]sandbox.IDLimits{"always": {MaxCount: 2 * idpool.Unit, Reservations: []string{"*"}}},
		DefaultHandler: "runc",
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	return m
}

func (w *fuzzWorld) newContainers(tb testing.TB, logger klog.Logger, notify func(sandbox.Event)) *container.Manager {
	tb.Helper()
	runc := container.Handler{Runtime: "io.containerd.runc.v2", BinaryName: "runc", Snapshotter: "overlayfs"}
	m, err := container.New(container.Options{
		DB: w.db, Images: w.engine, Snapshots: w.engine, Records: w.engine, Tasks: w.engine, Inspector: w.engine,
		Execs: w.engine, Consoles: w.engine, Updates: w.engine, Checkpoints: w.engine, Diffs: w.engine, Rootfs: w.engine, PIDPins: w.engine,
		Cgroups: w.engine, Labels: fuzzLabels{},
		Sandbox: w.sandboxes.Get, Clock: clock.RealClock{}, Logger: logger, Notify: notify,
		StateDir: w.dirs.state, RootDir: w.dirs.root,
		Handlers: map[string]container.Handler{"runc": runc, "always": runc, "never": runc}, DefaultHandler: "runc",
		Host: ocispec.Host{
			CgroupV2: true, Swap: true, Hugetlb: true, Seccomp: true, RecursiveReadOnly: true,
			AppArmorDefault: "default", ReadProfile: w.engine.readProfile,
		},
		Classes: qosclass.New(qosclass.Options{}),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	return m
}

// noStreams is for a streaming server that gives out URLs to which nobody goes.
type noStreams struct{}

var errNoStreams = errors.New("nobody streams")

func (noStreams) Exec(context.Context, string, []string, stream.Streams) (int, error) {
	return 0, errNoStreams
}
func (noStreams) Attach(context.Context, string, stream.Streams) error { return errNoStreams }
func (noStreams) PortForward(context.Context, string, uint16, io.ReadWriteCloser) error {
	return errNoStreams
}

// wire is a message as it is sent, which need not be one of protobuf.
type wire []byte

// wireCodec sends and receives messages as they are.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(wire)
	if !ok {
		return nil, fmt.Errorf("%T is no message of the wire", v)
	}
	return b, nil
}

func (wireCodec) Unmarshal(data []byte, v any) error {
	*v.(*wire) = append(wire(nil), data...)
	return nil
}
