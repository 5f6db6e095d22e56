package network

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const recorderConf = `{"cniVersion": "1.0.0", "name": "NAME", "plugins": [{"type": "recorder", "dir": "DIR",
  "capabilities": {"portMappings": true, "bandwidth": true, "dns": true, "cgroupPath": true, "io.kubernetes.cri.pod-annotations": true}}]}`

func TestStatus(t *testing.T) {
	n := newNode(t, Options{})
	wants := func(state, missing string) {
		t.Helper()
		if err := n.Status(t.Context()); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: Status = %v, want %v about %q", state, err, ErrNotReady, missing)
		}
	}
	wants("no directory", n.confDir)
	if err := os.MkdirAll(n.confDir, 0o700); err != nil {
		t.Fatal(err)
	}
	wants("empty directory", n.confDir)
	n.configure(t, "README.md", "not a configuration")
	wants("nothing in it", n.confDir)
	n.configure(t, "10-a.conflist", `{"name": `)
	wants("half a file", "10-a.conflist")
	n.configure(t, "10-a.conflist", `{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "absent"}]}`)
	wants("missing plugin", `plugin "absent" is in none of`)
	n.configure(t, "10-a.conflist", `{"cniVersion": "1.1.0", "name": "a", "plugins": [{"type": "failer", "dir": "DIR"}]}`)
	wants("plugin that is not ready", "the failer fails")
	n.configure(t, "10-a.conflist", recorderConf)
	if err := n.Status(t.Context()); err != nil {
		t.Errorf("Status with a configuration: %v", err)
	}
	if err := os.Remove(filepath.Join(n.confDir, "10-a.conflist")); err != nil {
		t.Fatal(err)
	}
	wants("removed again", n.confDir)
}

// TestConfigurationChange replaces a file by one of the same size and time, right after it was
// read, as well as one that was long there.
func TestConfigurationChange(t *testing.T) {
	n := newNode(t, Options{})
	for _, age := range []time.Duration{0, time.Hour} {
		for _, name := range []string{"aaa", "bbb"} {
			n.configure(t, "10.conflist", strings.Replace(recorderConf, "NAME", name, 1))
			if age > 0 {
				// Each file its own time: a replacement that keeps the time of an old file is
				// not noticed, and nobody makes one.
				past := time.Now().Add(-age).Add(time.Duration(name[0]) * time.Second)
				for _, path := range []string{"10.conflist", "."} {
					if err := os.Chtimes(filepath.Join(n.confDir, path), past, past); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2 {
				conf, err := n.configuration()
				if err != nil || conf.networks[0].list.Name != name {
					t.Fatalf("configuration = %+v, %v, want %s", conf, err, name)
				}
			}
			if cached := n.seen != ""; cached != (age > 0) {
				t.Errorf("age %s: cached %t", age, cached)
			}
		}
	}
}

// TestConfigurationFormats connects pods by each kind of file, and by several at once.
func TestConfigurationFormats(t *testing.T) {
	single := `{"cniVersion": "1.0.0", "name": "NAME", "type": "recorder", "dir": "DIR"}`
	for file, content := range map[string]string{"1.conf": single, "1.json": single, "1.conflist": recorderConf} {
		n := newNode(t, Options{})
		n.configure(t, file, content)
		pod := newPod(t)
		result, err := n.Setup(t.Context(), pod)
		if err != nil || result.IPs[0].String() != "192.0.2.7" {
			t.Errorf("%s: Setup = %+v, %v", file, result, err)
		}
		if err := n.Teardown(t.Context(), pod); err != nil || n.record("recorder", "DEL") == "" {
			t.Errorf("%s: Teardown: %v", file, err)
		}
	}
	for limit, want := range map[int]int{0: 1, 1: 1, 2: 2, -1: 3} {
		n := newNode(t, Options{MaxConf: limit})
		for _, name := range []string{"a", "b", "c"} {
			n.configure(t, name+".conflist", strings.Replace(recorderConf, "NAME", name, 1))
		}
		pod := newPod(t)
		result, err := n.Setup(t.Context(), pod)
		if err != nil || len(result.Interfaces) != want || result.Interfaces[0].Name != "eth0" {
			t.Errorf("MaxConf %d: Setup = %+v, %v, want %d interfaces", limit, result, err, want)
		}
		if err := n.Teardown(t.Context(), pod); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(libcniCache + "/results/*"); err != nil || len(left) > 0 {
			t.Errorf("MaxConf %d: left in the cache: %q, %v", limit, left, err)
		}
	}
}

// TestPluginsOfDirectory: a network may have further plugins in a directory of its name.
func TestPluginsOfDirectory(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10.conflist", strings.Replace(recorderConf, "NAME", "pods", 1))
	if err := os.Mkdir(filepath.Join(n.confDir, "pods"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.configure(t, "pods/extra.conf", `{"type": "forgetter", "dir": "DIR"}`)
	pod := newPod(t)
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"ADD", "DEL"} {
		if n.record("forgetter", command) == "" {
			t.Errorf("the plugin of the directory was not called for %s", command)
		}
	}
}

func TestPluginsSeeThePod(t *testing.T) {
	n := newNode(t, Options{})
	n.configure(t, "10.conflist", recorderConf)
	pod := newPod(t)
	pod.Annotations = map[string]string{"team": "blue", ingressAnnotation: "1M", egressAnnotation: "2Mi"}
	pod.DNS = DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example.org"}, Options: []string{"ndots:5"}}
	pod.CgroupParent = "/kubepods/pod1"
	pod.PortMappings = []PortMapping{{Protocol: "UDP", ContainerPort: 53, HostPort: 5353, HostIP: "192.0.2.1"}, {Protocol: "tcp", ContainerPort: 80}}
	if _, err := n.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	got := n.record("recorder", "ADD")
	for _, want := range []string{
		"IgnoreUnknown=1", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=" + pod.Name, "K8S_POD_UID=" + pod.UID,
		"K8S_POD_INFRA_CONTAINER_ID=" + pod.ID,
		`"team":"blue"`, `"IngressRate":1000000`, `"EgressRate":2097152`, `"IngressBurst":4294967295`,
		`"dns":{"Servers":["192.0.2.53"],"Searches":["example.org"],"Options":["ndots:5"]}`, `"cgroupPath":"/kubepods/pod1"`,
		`"portMappings":[{"HostPort":5353,"ContainerPort":53,"Protocol":"udp","HostIP":"192.0.2.1"}]`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the plugin did not see %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if known, ok, err := Attached(pod.ID); err != nil || !ok || known.Name != pod.Name || known.Namespace != pod.Namespace || known.UID != pod.UID {
		t.Errorf("CNI was told of %+v, %t, %v", known, ok, err)
	}
	if err := n.Teardown(t.Context(), Pod{ID: pod.ID}); err != nil {
		t.Fatal(err)
	}
	if known, ok, err := Attached(pod.ID); ok || err != nil {
		t.Errorf("disconnected, CNI still knows of %+v, %v", known, err)
	}
	if got := n.record("recorder", "DEL"); !strings.Contains(got, "K8S_POD_NAME="+pod.Name) || !strings.Contains(got, `"HostPort":5353`) {
		t.Errorf("DEL was called with other arguments than ADD: %s", got)
	}
}
