package cdidev

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// vendorFile describes one device with an edit of each kind. HOST stands for a directory.
const vendorFile = `{
  "cdiVersion": "0.6.0",
  "kind": "example.com/gadget",
  "containerEdits": {"env": ["VENDOR=example"]},
  "devices": [
    {"name": "one", "containerEdits": {
      "env": ["GADGET=one"],
      "deviceNodes": [{"path": "/dev/gadget", "hostPath": "/dev/null", "permissions": "rw"}],
      "mounts": [
        {"hostPath": "HOST/lib", "containerPath": "/opt/lib", "options": ["ro", "bind"]},
        {"hostPath": "HOST/run", "containerPath": "/opt/run", "options": ["bind"]}],
      "hooks": [{"hookName": "createContainer", "path": "HOST/hook", "args": ["hook"]}]}},
    {"name": "same", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}},
    {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/gone", "type": "c", "major": 1, "minor": 5}]}}
  ]
}`

func write(t *testing.T, name, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text = strings.ReplaceAll(text, "HOST", dir)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func plain(userns bool) *specs.Spec {
	spec := &specs.Spec{
		Process: &specs.Process{Env: []string{"PATH=/bin"}},
		Linux:   &specs.Linux{Resources: &specs.LinuxResources{}},
		Mounts:  []specs.Mount{{Destination: "/volume", Options: []string{"bind", "ro", "idmap"}}},
	}
	if userns {
		spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace, Path: "/pin"}}
	}
	return spec
}

func mountAt(spec *specs.Spec, path string) *specs.Mount {
	i := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == path })
	if i < 0 {
		return nil
	}
	return &spec.Mounts[i]
}

func TestInjectEditsOfEachKind(t *testing.T) {
	dir := write(t, "vendor.json", vendorFile)
	spec := plain(false)
	req := Request{
		SpecDirs:    []string{dir},
		Devices:     []string{"example.com/gadget=one"},
		Annotations: map[string]string{"cdi.k8s.io/plugin_1": "example.com/gadget=one", "other": "x"},
	}
	if err := Inject(spec, req); err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=/bin", "VENDOR=example", "GADGET=one"}; !slices.Equal(spec.Process.Env, want) {
		t.Errorf("environment %q, want %q: a device that is named twice is injected once", spec.Process.Env, want)
	}
	if n := spec.Linux.Devices; len(n) != 1 || n[0].Path != "/dev/gadget" || n[0].Major != 1 || n[0].Minor != 3 {
		t.Errorf("device nodes %+v, want /dev/gadget with the numbers of /dev/null", n)
	}
	rules := spec.Linux.Resources.Devices
	if len(rules) != 1 || !rules[0].Allow || rules[0].Access != "rw" || *rules[0].Major != 1 || *rules[0].Minor != 3 {
		t.Errorf("device rules %+v, want rw for 1:3", rules)
	}
	if m := mountAt(spec, "/opt/lib"); m == nil || m.Source != filepath.Join(dir, "lib") {
		t.Errorf("mounts %+v, want /opt/lib", spec.Mounts)
	}
	if h := spec.Hooks; h == nil || len(h.CreateContainer) != 1 || h.CreateContainer[0].Path != filepath.Join(dir, "hook") {
		t.Errorf("hooks %+v, want one createContainer", h)
	}
}

func TestInjectIntoUserNamespace(t *testing.T) {
	dir := write(t, "vendor.json", vendorFile)
	spec := plain(true)
	req := Request{SpecDirs: []string{dir}, Devices: []string{"example.com/gadget=one", "example.com/gadget=same"}}
	if err := Inject(spec, req); err != nil {
		t.Fatal(err)
	}
	if n := spec.Linux.Devices; len(n) != 1 || n[0].Path != "/dev/null" {
		t.Errorf("nodes %+v, want /dev/null alone, which the OCI runtime finds by that path", n)
	}
	want := &specs.Mount{Destination: "/dev/gadget", Type: "bind", Source: "/dev/null", Options: []string{"bind", "rprivate"}}
	if got := mountAt(spec, "/dev/gadget"); !reflect.DeepEqual(got, want) {
		t.Errorf("mount of the node: %+v, want %+v", got, want)
	}
	if rules := spec.Linux.Resources.Devices; len(rules) != 2 {
		t.Errorf("device rules %+v, want those of both devices", rules)
	}
	for path, idmapped := range map[string]bool{"/opt/lib": false, "/opt/run": true, "/volume": true} {
		if m := mountAt(spec, path); m == nil || slices.Contains(m.Options, "idmap") != idmapped {
			t.Errorf("mount at %s: %+v, want it idmapped: %t", path, m, idmapped)
		}
	}
}

func TestInjectRefuses(t *testing.T) {
	dir := write(t, "vendor.json", vendorFile)
	faulty := write(t, "other.json", `{"cdiVersion": "0.6.0", "kind": "example.com/other", "devices": [{"name": "x"}]}`)
	for name, tt := range map[string]struct {
		req    Request
		userns bool
		want   error
		says   string
	}{
		"no name":           {req: Request{Devices: []string{"gadget"}}, want: ocispec.ErrInvalid, says: `"gadget"`},
		"bad annotation":    {req: Request{Annotations: map[string]string{"cdi.k8s.io/x": "gadget"}}, want: ocispec.ErrInvalid, says: "gadget"},
		"unknown":           {req: Request{SpecDirs: []string{dir}, Devices: []string{"example.com/gadget=two"}}, want: ErrNotFound, says: "example.com/gadget=two"},
		"no directory":      {req: Request{Devices: []string{"example.com/gadget=one"}}, want: ErrNotFound, says: "example.com/gadget=one"},
		"in a faulty file":  {req: Request{SpecDirs: []string{faulty}, Devices: []string{"example.com/other=x"}}, want: ErrNotFound, says: "faulty files: "},
		"no node to bind":   {req: Request{SpecDirs: []string{dir}, Devices: []string{"example.com/gadget=gone"}}, userns: true, want: ocispec.ErrUnsupported, says: "/dev/gone"},
		"none asked for":    {req: Request{SpecDirs: []string{faulty}}},
		"node can be made":  {req: Request{SpecDirs: []string{dir}, Devices: []string{"example.com/gadget=gone"}}},
		"beside the faulty": {req: Request{SpecDirs: []string{faulty, dir}, Devices: []string{"example.com/gadget=same"}}},
	} {
		t.Run(name, func(t *testing.T) {
			err := Inject(plain(tt.userns), tt.req)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Inject: %v, want %v that says %q", err, tt.want, tt.says)
			}
		})
	}
}
