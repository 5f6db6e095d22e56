package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func propagation(p runtimeapi.MountPropagation) func(*runtimeapi.Mount) {
	return func(m *runtimeapi.Mount) { m.Propagation = p }
}

// sharedVolume is a volume on a mount of its own that propagates.
func sharedVolume(t *testing.T, n *nodetest.Node) string {
	t.Helper()
	dir := volume(t, n)
	mountOn(t, n, dir, "-t", "tmpfs", "-o", "mode=1777", "tmpfs")
	onNode(t, n, "mount", "--make-shared", dir)
	inNode(t, n, func() error { return os.Mkdir(filepath.Join(dir, "late"), 0o777) })
	return dir
}

// appear mounts something with a file below a volume.
func appear(t *testing.T, n *nodetest.Node, dir string) {
	t.Helper()
	late := filepath.Join(dir, "late")
	onNode(t, n, "mount", "-t", "tmpfs", "tmpfs", late)
	inNode(t, n, func() error { return os.WriteFile(filepath.Join(late, "file"), []byte("late\n"), 0o644) })
}

func TestPrivatePropagation(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
		dir := sharedVolume(t, n)
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"))
		appear(t, n, dir)
		wantFailure(t, c, "cat", "/vol/late/file")
	})
}

func TestHostToContainerPropagation(t *testing.T) {
	const hostToContainer = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	for _, readonly := range []bool{false, true} {
		t.Run(fmt.Sprintf("readonly %v", readonly), func(t *testing.T) {
			eachUsers(t, func(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
				dir := sharedVolume(t, n)
				c := pod.Run(t, probeImage(t, n), nodetest.Capabilities("SYS_ADMIN"), nodetest.Unconfined, bind(dir, "/vol", func(m *runtimeapi.Mount) {
					m.Propagation, m.Readonly = hostToContainer, readonly
				}))
				appear(t, n, dir)
				if got := c.Exec(t, "cat", "/vol/late/file"); got != "late" {
					t.Errorf("a mount that the host makes later has a file with %q", got)
				}
				if r := probe(t, c, "mounttmpfs", "/vol/late"); r.Errno != "" {
					t.Fatalf("mount inside: %+v", r)
				}
				inNode(t, n, func() error {
					_, err := os.Stat(filepath.Join(dir, "late", "file")) // a mount made inside would hide it
					return err
				})
			})
		})
	}
}

func TestBidirectionalPropagation(t *testing.T) {
	both := propagation(runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL)
	n := sharedNode(t)
	image := probeImage(t, n)
	t.Run("without a user namespace", func(t *testing.T) {
		dir := sharedVolume(t, n)
		c := n.RunPod(t, nodetest.HostUsers).Run(t, image, nodetest.Capabilities("SYS_ADMIN"), nodetest.Unconfined, bind(dir, "/vol", both))
		if r := probe(t, c, "mounttmpfs", "/vol/late"); r.Errno != "" {
			t.Fatalf("mount inside: %+v", r)
		}
		c.Exec(t, "touch", "/vol/late/inside")
		inNode(t, n, func() error {
			_, err := os.Stat(filepath.Join(dir, "late", "inside"))
			return err
		})
	})
	for name, dir := range map[string]string{"shared source": sharedVolume(t, n), "private source": volume(t, n)} {
		t.Run("refused with a user namespace, "+name, func(t *testing.T) {
			pod := n.RunPod(t)
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, bind(dir, "/vol", both)))
			wantError(t, err, codes.FailedPrecondition, dir, "/vol", "user namespace", "never reach the host", "hostUsers: true")
		})
	}
}

func TestPropagationNeedsASourceThatPropagates(t *testing.T) {
	n := sharedNode(t)
	dir := volume(t, n)
	mountOn(t, n, dir, "-t", "tmpfs", "tmpfs")
	onNode(t, n, "mount", "--make-private", dir)
	for p, pods := range map[runtimeapi.MountPropagation][]nodetest.PodOption{
		runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: nil,
		runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     {nodetest.HostUsers},
	} {
		t.Run(p.String(), func(t *testing.T) {
			pod := n.RunPod(t, pods...)
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), bind(dir, "/vol", propagation(p))))
			wantError(t, err, codes.InvalidArgument, dir, "/vol", "mount")
		})
	}
}
