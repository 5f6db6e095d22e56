package cri

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/state"
)

// FuzzRPCs drives every RPC of the API with sequences of good, mutated and garbled requests. Nothing may panic, each
// error has a code that tells of the request, and once what exists is removed nothing is left anywhere.
func FuzzRPCs(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	w := newFuzzWorld(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		w.check(t, input)
	})
}

// TestFuzzSeedsReachEveryRPC holds that the plain seeds call each RPC, and that each has succeeded that can.
func TestFuzzSeedsReachEveryRPC(t *testing.T) {
	w := newFuzzWorld(t)
	total := map[protoreflect.Name]outcome{}
	for i, seed := range plainSeeds() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			for name, o := range w.check(t, seed) {
				total[name] = outcome{total[name].calls + o.calls, total[name].ok + o.ok}
			}
		})
	}
	for _, method := range fuzzAPI {
		o := total[method.Name()]
		served := callWithoutManagers(method) != codes.Unimplemented
		if o.calls == 0 || served && o.ok == 0 {
			t.Errorf("%s: %d calls, %d of them good", method.Name(), o.calls, o.ok)
		}
	}
}

// check runs one input and holds what has to be true afterwards.
func (w *fuzzWorld) check(t *testing.T, input []byte) map[protoreflect.Name]outcome {
	t.Helper()
	p := &program{world: w, tape: &tape{data: input}, tally: map[protoreflect.Name]outcome{}}
	w.log.take()
	before := runtime.NumGoroutine()
	p.run(t)
	w.tearDown(t, p)
	for _, thing := range w.left(t) {
		t.Errorf("left behind: %s", thing)
	}
	w.engine.resetImages()
	w.dirs.reset(t)
	awaitGoroutines(t, before)
	if t.Failed() {
		t.Logf("calls:\n%s\nlog:\n%s", strings.Join(p.calls, "\n"), strings.Join(w.log.take(), "\n"))
	}
	return p.tally
}

// tearDown removes all sandboxes as kubelet does.
func (w *fuzzWorld) tearDown(t *testing.T, p *program) {
	t.Helper()
	client := runtimeapi.NewRuntimeServiceClient(w.conn)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stepTimeout)
	defer cancel()
	for _, rec := range w.sandboxes.List() {
		if _, err := client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: rec.ID}); err != nil {
			t.Errorf("stop %s: %v", rec.ID, err)
		}
		if _, err := client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: rec.ID}); err != nil {
			t.Errorf("remove %s: %v", rec.ID, err)
		}
		p.calls = append(p.calls, "removal of "+rec.ID)
	}
}

// left names what is still there.
func (w *fuzzWorld) left(t *testing.T) []string {
	t.Helper()
	out := slices.Concat(w.engine.left(), w.host.left(), w.dirs.left(t))
	err := w.db.View(func(tx *state.Tx) error {
		for _, bucket := range []string{"sandboxes", "sandbox-names", "containers", "container-names"} {
			err := tx.Raw(bucket).ForEach(func(key string, _ []byte) error {
				out = append(out, bucket+" "+key)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	stats := w.pool.Stats()
	if n := stats.Pool.Allocated + stats.Kubelet.Allocated + stats.External.Allocated; n > 0 {
		out = append(out, fmt.Sprintf("%d ranges of host ids", n))
	}
	return out
}

// left names files, directories and mounts below the server's directories, and what was written elsewhere.
func (d fuzzDirs) left(t *testing.T) []string {
	t.Helper()
	expected := []string{
		d.state, filepath.Join(d.state, "sandboxes"), filepath.Join(d.state, "containers"),
		d.root, filepath.Join(d.root, "volumes"), filepath.Join(d.root, "checkpoints"), filepath.Join(d.root, "restores"), filepath.Join(d.root, "state.db"), filepath.Join(d.root, "state.db.lock"), d.outside,
	}
	var out []string
	for _, dir := range []string{d.state, d.root, d.outside} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if !slices.Contains(expected, path) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, name := range mustList(t, ".") {
		if !slices.Contains(d.working, name) && name != "testdata" && filepath.Ext(name) != ".go" {
			out = append(out, "in the working directory "+name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.base) {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	return out
}

// awaitGoroutines holds that those which calls started have ended; what a call leaves to end by itself has a
// moment for it.
func awaitGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
				t.Error(err)
			}
			t.Errorf("%d goroutines, and %d before:\n%s", runtime.NumGoroutine(), before, stacks.String())
			return
		}
	}
}
