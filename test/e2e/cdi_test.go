package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// gadgetFile describes a device node that is /dev/zero by its numbers, at a path of its own on the host and
// another one in the container; DIR stands for the directory of the host's files.
const gadgetFile = `cdiVersion: "0.6.0"
kind: example.com/gadget
containerEdits:
  env: [VENDOR=example]
devices:
- name: zero
  containerEdits:
    env: [GADGET=zero]
    deviceNodes:
    - {path: /dev/gadget/zero0, hostPath: DIR/node0, permissions: rw}
    mounts:
    - {hostPath: DIR/lib, containerPath: /opt/gadget/lib, options: [ro, nosuid, nodev, bind]}
    hooks:
    - {hookName: createRuntime, path: /bin/sh, args: [sh, -c, "cat > DIR/hooked"]}
- name: samepath
  containerEdits:
    deviceNodes:
    - {path: DIR/node0}
`

// gadget makes the host's part of the device, and the CDI file.
func gadget(t *testing.T, n *nodetest.Node) (dir string) {
	t.Helper()
	dir = filepath.Join(n.Daemon.CDI, "gadget")
	t.Cleanup(func() {
		if err := os.RemoveAll(n.Daemon.CDI); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lib", "libgadget.so"), []byte("driver"), 0o644); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(dir, "node0")
	if out, err := exec.Command("mknod", "-m", "666", node, "c", "1", "5").CombinedOutput(); err != nil {
		t.Fatalf("mknod: %v: %s", err, out)
	}
	file := strings.ReplaceAll(gadgetFile, "DIR", dir)
	if err := os.WriteFile(filepath.Join(n.Daemon.CDI, "gadget.yaml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cdiDevice asks for devices as kubelet does.
func cdiDevice(names ...string) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		for _, name := range names {
			c.CDIDevices = append(c.CDIDevices, &runtimeapi.CDIDevice{Name: name})
		}
	}
}

// cdiAnnotation asks for a device as older device plugins do.
func cdiAnnotation(name string) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{"cdi.k8s.io/example_0": name}
	}
}

// TestCDIDevice gives a container a real device node with an environment, a mount and a hook.
func TestCDIDevice(t *testing.T) {
	n := sharedNode(t)
	dir := gadget(t, n)
	ways := map[string]nodetest.ContainerOption{
		"field":      cdiDevice("example.com/gadget=zero"),
		"annotation": cdiAnnotation("example.com/gadget=zero"),
	}
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) {
				c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), way, nodetest.User(1000, 1000))
				wantGadget(t, c, dir)
			})
		}
	})
}

func wantGadget(t *testing.T, c *nodetest.Container, dir string) {
	t.Helper()
	if got := c.Exec(t, "sh", "-c", "head -c 4 /dev/gadget/zero0 | od -An -tx1; echo x > /dev/gadget/zero0"); fields(got) != "00 00 00 00" {
		t.Errorf("the device reads %q, want zeros", got)
	}
	if got := c.Exec(t, "stat", "-c", "%F %t:%T", "/dev/gadget/zero0"); got != "character special file 1:5" {
		t.Errorf("the device is %q, want a node 1:5", got)
	}
	if got := c.Exec(t, "sh", "-c", "echo $VENDOR $GADGET"); got != "example zero" {
		t.Errorf("the environment holds %q, want example zero", got)
	}
	if got := c.Exec(t, "cat", "/opt/gadget/lib/libgadget.so"); got != "driver" {
		t.Errorf("the driver reads %q", got)
	}
	if r, err := c.TryExec(t.Context(), "touch", "/opt/gadget/lib/x"); err != nil || r.ExitCode == 0 {
		t.Errorf("writing beside the driver gives %v, %v: want an error", r, err)
	}
	hooked, err := os.ReadFile(filepath.Join(dir, "hooked"))
	if err != nil || !strings.Contains(string(hooked), c.ID) {
		t.Errorf("the hook read %q (%v), want the state of container %s", hooked, err, c.ID)
	}
}

// TestCDIDeviceAtItsHostPath is the case that the OCI runtime binds by itself.
func TestCDIDeviceAtItsHostPath(t *testing.T) {
	n := sharedNode(t)
	dir := gadget(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, n.Image(t, labimage.Demo), cdiDevice("example.com/gadget=samepath"))
		if got := c.Exec(t, "stat", "-c", "%F %t:%T", filepath.Join(dir, "node0")); got != "character special file 1:5" {
			t.Errorf("the device is %q, want a node 1:5", got)
		}
		if got := c.Exec(t, "head", "-c", "2", filepath.Join(dir, "node0")); got != "\x00\x00" {
			t.Errorf("the device reads %q, want zeros", got)
		}
	})
}

// TestCDIDriverOfTheHostCannotBeWritten lets in-pod root with CAP_SYS_ADMIN make the mount writable.
func TestCDIDriverOfTheHostCannotBeWritten(t *testing.T) {
	n := sharedNode(t)
	dir := gadget(t, n)
	before := entries(t, filepath.Join(dir, "lib"))
	for _, way := range []string{"remount", "setattr", "rebind"} {
		c := powerful(t, n, cdiDevice("example.com/gadget=zero"))
		if r := probe(t, c, way, "/opt/gadget/lib"); r.Errno == "" {
			t.Errorf("%s: in-pod root wrote to the host's driver: %+v", way, r)
		}
	}
	if after := entries(t, filepath.Join(dir, "lib")); !slices.Equal(before, after) {
		t.Errorf("the host's directory holds %q, want %q", after, before)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestCDIDeviceThatIsUnknown(t *testing.T) {
	n := sharedNode(t)
	gadget(t, n)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for name, want := range map[string]codes.Code{
			"example.com/gadget=two": codes.NotFound,
			"example.com/other=zero": codes.NotFound,
			"zero":                   codes.InvalidArgument,
		} {
			for _, way := range []nodetest.ContainerOption{cdiDevice(name), cdiAnnotation(name)} {
				_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, way))
				if status.Code(err) != want || !strings.Contains(err.Error(), name) {
					t.Errorf("CreateContainer with device %q: %v, want %s that names it", name, err, want)
				}
			}
		}
	})
}
