package installer

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	oldSocket = "unix:///run/containerd/containerd.sock"
	newSocket = "unix:///run/userns-shim/userns-shim.sock"
)

// TestEndpointThereAndBack: what kubelet is told changes in each form that nodes have, and comes back to the byte.
func TestEndpointThereAndBack(t *testing.T) {
	for name, tc := range map[string]struct{ file, before, after string }{
		"a key":        {"/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: " + oldSocket + "\n", "kind: KubeletConfiguration\ncontainerRuntimeEndpoint: " + newSocket + "\n"},
		"no key":       {"/var/lib/kubelet/config.yaml", "# mine\nkind: KubeletConfiguration\n", "# mine\nkind: KubeletConfiguration\ncontainerRuntimeEndpoint: " + newSocket + "\n"},
		"JSON":         {"/var/lib/kubelet/config.yaml", `{"kind": "KubeletConfiguration", "containerRuntimeEndpoint": "` + oldSocket + `"}` + "\n", `{"kind": "KubeletConfiguration", "containerRuntimeEndpoint": "` + newSocket + `"}` + "\n"},
		"kubeadm":      {"/var/lib/kubelet/kubeadm-flags.env", `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=` + oldSocket + ` --x=y"` + "\n", `KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=` + newSocket + ` --x=y"` + "\n"},
		"two words":    {"/etc/default/kubelet", "ARGS=--container-runtime-endpoint " + oldSocket + "\n", "ARGS=--container-runtime-endpoint " + newSocket + "\n"},
		"sysconfig":    {"/etc/sysconfig/kubelet", "ARGS='--container-runtime-endpoint=" + oldSocket + "'\n", "ARGS='--container-runtime-endpoint=" + newSocket + "'\n"},
		"a drop-in":    {"/etc/systemd/system/kubelet.service.d/10-x.conf", "ExecStart=/kubelet \\\n --container-runtime-endpoint=" + oldSocket + "\\\n --v=2\n", "ExecStart=/kubelet \\\n --container-runtime-endpoint=" + newSocket + "\\\n --v=2\n"},
		"another unix": {"/var/lib/kubelet/config.yaml", "containerRuntimeEndpoint: unix:///var/run/crio/crio.sock\n", "containerRuntimeEndpoint: " + newSocket + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &node{root: t.TempDir()}
			n.write(t, tc.file, tc.before)
			h := host{n.root}
			places, err := h.planEndpoint("/var/lib/kubelet/config.yaml")
			if err != nil || len(places) != 1 || places[0].Path != tc.file {
				t.Fatalf("places %v, %v", places, err)
			}
			if err := h.setEndpoint(places[0], newSocket); err != nil || n.read(tc.file) != tc.after {
				t.Errorf("%v, got\n%s\nwant\n%s", err, n.read(tc.file), tc.after)
			}
			if err := h.setEndpoint(places[0], places[0].Old); err != nil || n.read(tc.file) != tc.before {
				t.Errorf("back: %v, got\n%s\nwant\n%s", err, n.read(tc.file), tc.before)
			}
		})
	}
}

// TestEndpointPlaces: all places are found, the flag before the file, since it wins for kubelet.
func TestEndpointPlaces(t *testing.T) {
	n := &node{root: t.TempDir()}
	h := host{n.root}
	if _, err := h.planEndpoint("/var/lib/kubelet/config.yaml"); !errors.Is(err, ErrNoKubelet) {
		t.Errorf("without a kubelet: %v", err)
	}
	n.write(t, "/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n")
	n.write(t, instanceConfig, "containerRuntimeEndpoint: "+oldSocket+"\n")
	n.write(t, "/etc/default/kubelet", "KUBELET_EXTRA_ARGS=--v=2\n")
	n.write(t, "/var/lib/kubelet/kubeadm-flags.env", "A=--container-runtime-endpoint=unix:///flag.sock\n")
	places, err := h.planEndpoint("/var/lib/kubelet/config.yaml")
	want := []endpoint{
		{Path: "/var/lib/kubelet/kubeadm-flags.env", Flag: true, Old: "unix:///flag.sock"},
		{Path: "/var/lib/kubelet/config.yaml"},
		{Path: instanceConfig, Old: oldSocket},
	}
	if err != nil || !reflect.DeepEqual(places, want) {
		t.Errorf("places %+v, %v, want %+v", places, err, want)
	}
	if old := (journal{Endpoints: places}).oldEndpoint(); old != "unix:///flag.sock" {
		t.Errorf("the old runtime is %s", old)
	}
	n.write(t, "/usr/lib/systemd/system/kubelet.service.d/10-vendor.conf", "ExecStart=/kubelet --container-runtime-endpoint=x\n")
	if _, err := h.planEndpoint("/var/lib/kubelet/config.yaml"); err == nil || !strings.Contains(err.Error(), "10-vendor.conf") {
		t.Errorf("a vendor's file: %v", err)
	}
}

// TestLinksStayBelowTheRoot: a node's absolute link leads to the node's file, not to that of this machine.
func TestLinksStayBelowTheRoot(t *testing.T) {
	n := newNode(t)
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(n.root, "usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(n.root, "usr/local")); err != nil {
		t.Fatal(err)
	}
	if err := n.install(t); err != nil {
		t.Fatal(err)
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) > 0 {
		t.Errorf("outside of the root there is %v, %v", found, err)
	}
	if got := n.read(filepath.Join(outside, "bin/userns-shim")); got != "program 1" {
		t.Errorf("below the root: %s", got)
	}
}
