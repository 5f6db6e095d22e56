package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// pluginScript and pluginEntry are those of nriplugin, see there.
type pluginScript struct {
	Fail   map[string]string            `json:"fail,omitempty"`
	Hang   map[string]bool              `json:"hang,omitempty"`
	Adjust map[string]json.RawMessage   `json:"adjust,omitempty"`
	Update map[string][]json.RawMessage `json:"update,omitempty"`
}

type pluginEntry struct {
	Event      string            `json:"event"`
	PID        int               `json:"pid"`
	Pod        json.RawMessage   `json:"pod"`
	Container  json.RawMessage   `json:"container"`
	Pods       []json.RawMessage `json:"pods"`
	Containers []json.RawMessage `json:"containers"`
	Resources  json.RawMessage   `json:"resources"`
	Failed     int               `json:"failed"`
	Error      string            `json:"error"`
}

// nriPlugin is a plugin in a process of its own, and the directory through which a test talks to it.
type nriPlugin struct{ dir string }

func newPlugin(t *testing.T) *nriPlugin { return &nriPlugin{dir: t.TempDir()} }

// start connects the plugin to a node and waits until it was synchronized.
func (p *nriPlugin) start(t *testing.T, n *nodetest.Node, index string) {
	t.Helper()
	cmd := exec.Command(shared.programs(t).plugin, "-socket", n.Daemon.NRISocket(), "-dir", p.dir, "-name", "test", "-index", index)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("kill plugin: %v", err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("plugin %s: %s", index, &stderr)
		}
	})
	p.await(t, "Synchronize", 1)
}

// runPlugin starts a plugin of its own for a test.
func runPlugin(t *testing.T, n *nodetest.Node) *nriPlugin {
	t.Helper()
	p := newPlugin(t)
	p.start(t, n, "10")
	return p
}

// put writes a file whole.
func (p *nriPlugin) put(t *testing.T, name string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.WriteFile(path+".new", data, 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// answer makes the plugin answer so from now on.
func (p *nriPlugin) answer(t *testing.T, s pluginScript) {
	t.Helper()
	p.put(t, "script.json", s)
}

// adjust makes the plugin adjust containers of a name from now on.
func (p *nriPlugin) adjust(t *testing.T, container string, adjust *api.ContainerAdjustment) {
	t.Helper()
	p.answer(t, pluginScript{Adjust: map[string]json.RawMessage{container: pluginMessage(t, adjust)}})
}

func pluginMessage(t *testing.T, m proto.Message) json.RawMessage {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// log is what the plugin has seen until now.
func (p *nriPlugin) log(t *testing.T) []pluginEntry {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "log.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var out []pluginEntry
	for _, line := range bytes.Split(data, []byte("\n")) {
		var e pluginEntry
		if len(line) > 0 && json.Unmarshal(line, &e) == nil { // the last may be half there
			out = append(out, e)
		}
	}
	return out
}

// entries are those of one event.
func (p *nriPlugin) entries(t *testing.T, event string) []pluginEntry {
	t.Helper()
	return slices.DeleteFunc(p.log(t), func(e pluginEntry) bool { return e.Event != event })
}

// await waits for the count-th entry of an event and returns it.
func (p *nriPlugin) await(t *testing.T, event string, count int) pluginEntry {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if found := p.entries(t, event); len(found) >= count {
			return found[count-1]
		}
	}
	t.Fatalf("the plugin has not seen %s %d times: %+v", event, count, p.log(t))
	return pluginEntry{}
}

// of are the events of one pod, in the order in which the plugin saw them.
func (p *nriPlugin) of(t *testing.T, podID string) []string {
	t.Helper()
	var out []string
	for _, e := range p.log(t) {
		if len(e.Pod) > 0 && podMessage(t, e.Pod).Id == podID {
			out = append(out, e.Event)
		}
	}
	return out
}

func podMessage(t *testing.T, data json.RawMessage) *api.PodSandbox {
	t.Helper()
	m := &api.PodSandbox{}
	if err := protojson.Unmarshal(data, m); err != nil {
		t.Fatalf("pod %s: %v", data, err)
	}
	return m
}

func containerMessage(t *testing.T, data json.RawMessage) *api.Container {
	t.Helper()
	m := &api.Container{}
	if err := protojson.Unmarshal(data, m); err != nil {
		t.Fatalf("container %s: %v", data, err)
	}
	return m
}
