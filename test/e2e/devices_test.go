package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// device asks for a device node of the host.
func device(hostPath, containerPath, permissions string) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		c.Devices = append(c.Devices, &runtimeapi.Device{HostPath: hostPath, ContainerPath: containerPath, Permissions: permissions})
	}
}

// TestDevices gives a container devices of the host, at their own and at other paths.
func TestDevices(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image, device("/dev/kmsg", "/dev/kmsg", "r"), device("/dev/kmsg", "/dev/other/kmsg", "r"))
		for _, path := range []string{"/dev/kmsg", "/dev/other/kmsg"} {
			if got := c.Exec(t, "stat", "-c", "%F %t:%T", path); got != "character special file 1:b" {
				t.Errorf("%s is %q, want a node 1:11", path, got)
			}
		}
		if got := c.Exec(t, "sh", "-c", "ls /dev/kvm /dev/fuse /dev/vda 2>/dev/null | wc -l"); got != "0" {
			t.Errorf("%s devices that nobody asked for", got)
		}
		wantCreateError(t, pod, image, codes.InvalidArgument, "/dev/nowhere", device("/dev/nowhere", "/dev/x", "rwm"))
		wantCreateError(t, pod, image, codes.InvalidArgument, `"x"`, device("/dev/null", "/dev/x", "x"))
	})
}

// TestDevicePermissions needs a device that the devices cgroup alone keeps from being written: /dev/zero has a
// rule of every container's, so its neighbour /dev/kmsg serves.
func TestDevicePermissions(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), device("/dev/kmsg", "/dev/kmsg", "r"))
	if r, err := c.TryExec(t.Context(), "sh", "-c", "echo e2e > /dev/kmsg"); err != nil || r.ExitCode == 0 {
		t.Errorf("writing to a device for reading: %v, %v, want an error", r, err)
	}
}

// annotations sets annotations of a pod.
func annotations(key, value string) nodetest.PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) { req.Config.Annotations = map[string]string{key: value} }
}

func TestBlockIOClass(t *testing.T) {
	disk, numbers := aDisk(t)
	file := filepath.Join(t.TempDir(), "blockio.yaml")
	classes := fmt.Sprintf("Classes:\n  slow:\n  - Devices: [%s]\n    ThrottleReadBps: 8M\n", disk)
	if err := os.WriteFile(file, []byte(classes), 0o644); err != nil {
		t.Fatal(err)
	}
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Extra: "blockIOConfigFile: " + file}})
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, append(opts, annotations("blockio.resources.beta.kubernetes.io/pod", "slow"))...).Run(t, image)
		limitCase{
			control{"blkio", "blkio.throttle.read_bps_device", "io.max"},
			numbers + " 8000000", numbers + " rbps=8000000 wbps=max riops=max wiops=max",
		}.check(t, c)
		pod := n.RunPod(t, append(opts, annotations("blockio.resources.beta.kubernetes.io/pod", "lost"))...)
		wantCreateError(t, pod, image, codes.InvalidArgument, "lost")
	})
}

// aDisk is a disk of the host and its numbers.
func aDisk(t *testing.T) (path, numbers string) {
	t.Helper()
	found, err := filepath.Glob("/sys/block/*/device")
	if err != nil || len(found) == 0 {
		t.Skip("the host has no disk to throttle")
	}
	block := filepath.Dir(found[0])
	text, err := os.ReadFile(filepath.Join(block, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	return "/dev/" + filepath.Base(block), strings.TrimSpace(string(text))
}

// TestClassesThatTheNodeDoesNotHave asks for classes that no file defines.
func TestClassesThatTheNodeDoesNotHave(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for _, kind := range []string{"blockio", "rdt"} {
		pod := n.RunPod(t, annotations(kind+".resources.beta.kubernetes.io/pod", "gold"))
		wantCreateError(t, pod, image, codes.FailedPrecondition, `"gold"`)
	}
}
