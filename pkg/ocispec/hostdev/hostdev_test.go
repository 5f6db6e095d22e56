package hostdev

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

func TestResolveNode(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	got, err := Resolve(ocispec.Device{HostPath: link, ContainerPath: "/dev/nothing", Permissions: "rw"})
	if err != nil || len(got) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	d := got[0]
	if d.HostPath != "/dev/null" || d.Node.Path != "/dev/nothing" || d.Access != "rw" {
		t.Errorf("paths: %+v", d)
	}
	if d.Node.Type != "c" || d.Node.Major != 1 || d.Node.Minor != 3 {
		t.Errorf("node of /dev/null: %+v", d.Node)
	}
}

func TestResolveErrors(t *testing.T) {
	if _, err := Resolve(ocispec.Device{HostPath: "/dev/nowhere", Permissions: "r"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Resolve(ocispec.Device{HostPath: file, Permissions: "r"}); err == nil {
		t.Error("a regular file passed as a device")
	}
}

func TestAllHasNoTerminals(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	has := func(path string) bool {
		return slices.ContainsFunc(all, func(d ocispec.HostDevice) bool { return d.HostPath == path })
	}
	if !has("/dev/null") || has("/dev/console") || has("/dev/pts/0") {
		t.Errorf("devices: %+v", all)
	}
}

func TestResolveDirectory(t *testing.T) {
	all, err := Resolve(ocispec.Device{HostPath: "/dev", ContainerPath: "/hostdev", Permissions: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(d ocispec.HostDevice) bool {
		return d.HostPath == "/dev/null" && d.Node.Path == "/hostdev/null" && d.Access == "r"
	}) {
		t.Errorf("devices: %+v", all)
	}
}
