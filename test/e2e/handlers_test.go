package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// handlerNode starts a node that has, beside runc, the handlers of these lines: each the name and the fields.
func handlerNode(t *testing.T, lines ...string) *nodetest.Node {
	t.Helper()
	for i, line := range lines {
		name, fields, _ := strings.Cut(line, " ")
		lines[i] = fmt.Sprintf("  %s: {runtime: io.containerd.runc.v2, %s}", name, fields)
	}
	return ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{Handlers: strings.Join(lines, "\n")}})
}

// recordedSpec is the specification that containerd has of a container.
func recordedSpec(t *testing.T, n *nodetest.Node, id string) specs.Spec {
	t.Helper()
	ctx := nodetest.InContainerd(t.Context())
	resp, err := containersapi.NewContainersClient(n.Engine).Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(resp.Container.Spec.Value, &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

// pullFor pulls an image for a runtime handler.
func pullFor(t *testing.T, n *nodetest.Node, ref, handler string) string {
	t.Helper()
	resp, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: ref, RuntimeHandler: handler},
	})
	if err != nil {
		t.Fatalf("pull %s for %s: %v", ref, handler, err)
	}
	return resp.ImageRef
}

// TestHandlerFeaturesAreThoseOfEach: Status tells of each handler what it can do here, and the reason where it
// gives no user namespaces is in the verbose answer.
func TestHandlerFeaturesAreThoseOfEach(t *testing.T) {
	t.Parallel()
	n := handlerNode(t,
		"always binaryName: runc, userNamespaces: always",
		"never binaryName: runc, userNamespaces: never",
		"native binaryName: runc, snapshotter: native",
		// A runtime that has no command features.
		"mute binaryName: /bin/true",
		// One that is not installed: the node serves the others.
		"missing binaryName: no-such-runtime")
	found := handlers(t, n)
	for name, want := range map[string]bool{"": true, "runc": true, "always": true, "never": false, "native": true, "mute": false, "missing": false} {
		h, ok := found[name]
		if !ok || h.GetUserNamespaces() != want || h.GetRecursiveReadOnlyMounts() != (name != "mute" && name != "missing") {
			t.Errorf("handler %q is %v, want user namespaces: %t, and recursive read-only mounts of all but mute and missing", name, h, want)
		}
	}
	resp, err := n.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"userNamespaces: never", "/bin/true has no command features", "no-such-runtime"} {
		if !strings.Contains(resp.Info["config"], want) {
			t.Errorf("the verbose status does not say %q: %s", want, resp.Info["config"])
		}
	}
	// What is not reported is not given either, whatever a client other than kubelet asks for.
	_, err = n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("mute")))
	wantError(t, err, codes.FailedPrecondition, "mute", "features")
	_, err = n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("missing")))
	wantError(t, err, codes.FailedPrecondition, "missing", "no-such-runtime")
	_, err = n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("never")))
	wantError(t, err, codes.FailedPrecondition, "never")
	_, err = n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("no-such")))
	wantError(t, err, codes.InvalidArgument, "no-such")
	pod := n.RunPod(t, nodetest.HostUsers, nodetest.Handler("mute"))
	_, err = pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo), bind(volume(t, n), "/vol", func(m *runtimeapi.Mount) {
		m.Readonly, m.RecursiveReadOnly = true, true
	})))
	wantError(t, err, codes.FailedPrecondition, "recursive")
}

// TestHandlerAlwaysGivesAUserNamespaceUnasked: the pod says nothing of user namespaces, as any pod of a
// RuntimeClass, and gets one with its mounts idmapped.
func TestHandlerAlwaysGivesAUserNamespaceUnasked(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "always binaryName: runc, userNamespaces: always")
	image, dir := n.Image(t, labimage.Demo), volume(t, n)
	write(t, filepath.Join(dir, "roots"), "", 0, 0)
	write(t, filepath.Join(dir, "users"), "", 1000, 2000)
	for name, opts := range map[string][]nodetest.PodOption{
		"own network":  {nodetest.HostUsers},
		"host network": {nodetest.HostNetwork},
		"mode NODE": {func(req *runtimeapi.RunPodSandboxRequest) {
			podNamespaces(req).UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
		}},
		"shared processes": {nodetest.HostUsers, shareProcesses},
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, append(opts, nodetest.Handler("always"))...)
			start := pod.Range(t)
			c := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.ReadOnlyMount(dir, "/ro"))
			if got, want := fields(c.Exec(t, "cat", "/proc/self/uid_map")), fmt.Sprintf("0 %d 65536", start); got != want {
				t.Errorf("uid_map is %q, want %q", got, want)
			}
			for path, want := range map[string]string{"/vol/roots": "0:0", "/vol/users": "1000:2000", "/ro/users": "1000:2000", "/data/nonroot": "1000:1000"} {
				if got := c.Exec(t, "stat", "-c", "%u:%g", path); got != want {
					t.Errorf("%s belongs to %s inside, want %s", path, got, want)
				}
			}
			made := "made-by-" + pod.ID[:8]
			c.Exec(t, "touch", "/vol/"+made, "/"+made)
			if got := ownerOf(t, filepath.Join(dir, made)); got != (owner{}) {
				t.Errorf("what root makes in the volume belongs to %+v on the host, want 0:0", got)
			}
			if got := ownerOf(t, c.HostPath(t, "/"+made)); got != (owner{UID: start, GID: start}) {
				t.Errorf("what root makes in the root filesystem belongs to %+v on the host, want %d", got, start)
			}
		})
	}
}

// TestHandlerAlwaysLeavesOutWhatCannot: the host's PID and IPC namespaces are not a pod's to use from a user
// namespace of its own; such pods run as they ask.
func TestHandlerAlwaysLeavesOutWhatCannot(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "always binaryName: runc, userNamespaces: always")
	for name, opt := range map[string]nodetest.PodOption{
		"host PID": pidMode(runtimeapi.NamespaceMode_NODE),
		"host IPC": func(req *runtimeapi.RunPodSandboxRequest) { podNamespaces(req).Ipc = runtimeapi.NamespaceMode_NODE },
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, nodetest.HostUsers, opt, nodetest.Handler("always"))
			c := pod.Run(t, n.Image(t, labimage.Demo))
			if got := fields(c.Exec(t, "cat", "/proc/self/uid_map")); got != "0 0 4294967295" {
				t.Errorf("uid_map is %q, want the host's", got)
			}
			if mode := pod.Status(t).Linux.Namespaces.Options.UsernsOptions.Mode; mode != runtimeapi.NamespaceMode_NODE {
				t.Errorf("status reports mode %s, want NODE", mode)
			}
		})
	}
}

// TestHandlerAlwaysConfinesPrivilegedContainers: privileged is over what the pod owns, which the host's disks are
// not part of.
func TestHandlerAlwaysConfinesPrivilegedContainers(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "always binaryName: runc, userNamespaces: always")
	pod := n.RunPod(t, nodetest.HostUsers, nodetest.Handler("always"), func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.Linux.SecurityContext.Privileged = true
	})
	c := pod.Run(t, n.Image(t, labimage.Demo), func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.Privileged = true })
	if got, want := fields(c.Exec(t, "cat", "/proc/self/uid_map")), fmt.Sprintf("0 %d 65536", pod.Range(t)); got != want {
		t.Errorf("uid_map is %q, want %q", got, want)
	}
	c.Exec(t, "mount", "-t", "tmpfs", "tmpfs", "/tmp")
	wantFailure(t, c, "mknod", "/disk", "b", "7", "0")
	wantFailure(t, c, "sh", "-c", "echo 1 > /proc/sys/kernel/panic")
}

// TestHandlerWithOwnSnapshotter: an image is unpacked for the handler that it is pulled for, and pods of that
// handler have it as root filesystem, their files idmapped as a whole.
func TestHandlerWithOwnSnapshotter(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "native binaryName: runc, snapshotter: native")
	n.PushImage(t, "native:one", labimage.Catalogue(n.Box())[labimage.Demo])
	ref := n.Registry.Ref("native:one")
	id := pullFor(t, n, ref, "native")
	if got := imageStatus(t, n, ref); got.GetId() != id {
		t.Errorf("status is %v, want image %s", got, id)
	}
	if got := nodetest.Snapshots(t, n.Engine, "native"); len(got) != 5 {
		t.Errorf("snapshotter native holds %v, want the image's five layers", got)
	}
	if got := nodetest.Snapshots(t, n.Engine, "overlayfs"); len(got) != 0 {
		t.Errorf("snapshotter overlayfs holds %v, the image was pulled for native", got)
	}
	root := filepath.Join(n.Containerd.Root, "io.containerd.snapshotter.v1.native")
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, append(opts, nodetest.Handler("native"))...)
		c := pod.Run(t, ref)
		for path, want := range map[string]string{"/": "0:0", "/bin/box": "0:0", "/home/nonroot/mine": "1000:1000", "/data/dir": "1000:2000"} {
			if got := c.Exec(t, "stat", "-c", "%u:%g", path); got != want {
				t.Errorf("%s belongs to %s inside, want %s", path, got, want)
			}
		}
		c.Exec(t, "sh", "-c", "echo mine > /made && chown 1000:1000 /made && rm /data/root")
		if got := c.Exec(t, "stat", "-c", "%u:%g", "/made"); got != "1000:1000" {
			t.Errorf("a file made inside belongs to %s there, want 1000:1000", got)
		}
		collectGarbage(t, n) // what an earlier pod made
		made, err := filepath.Glob(filepath.Join(root, "snapshots", "*", "made"))
		if err != nil || len(made) != 1 {
			t.Fatalf("found %v, %v, want one file of the container below %s", made, err, root)
		}
		if got := ownerOf(t, made[0]); got != (owner{UID: 1000, GID: 1000}) {
			t.Errorf("on disk it belongs to %+v: the whole mount is idmapped, so want 1000:1000", got)
		}
		// Another container has the image as it was.
		if got := pod.Run(t, ref).Exec(t, "cat", "/data/root"); got != "0" {
			t.Errorf("another container reads %q of a file that the first removed", got)
		}
	})
	// The other way round: what was pulled for one handler is unpacked when another one needs it.
	pod := n.RunPod(t)
	pod.Run(t, ref).Exec(t, "true")
	if got := nodetest.Snapshots(t, n.Engine, "overlayfs"); len(got) < 5 {
		t.Errorf("snapshotter overlayfs holds %v, want the image's five layers", got)
	}
	resp, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.ImageFilesystems) != 2 || !strings.HasSuffix(resp.ImageFilesystems[1].FsId.GetMountpoint(), "native") {
		t.Errorf("image filesystems are %v, want the default's first and native's", resp.ImageFilesystems)
	}
	pod.Remove(t)
	removeImage(t, n, ref)
	eventually(t, "no snapshot of the image left in either snapshotter", func() bool {
		return !slices.ContainsFunc(slices.Concat(nodetest.Snapshots(t, n.Engine, "native"), nodetest.Snapshots(t, n.Engine, "overlayfs")), func(name string) bool {
			return strings.HasPrefix(name, "sha256:")
		})
	})
}

// TestHandlerOptions: each option of a handler reaches what it is for, and pods of other handlers are as before.
func TestHandlerOptions(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	n := handlerNode(t, fmt.Sprintf(`custom binaryName: runc, root: %s, privilegedWithoutHostDevices: true, `+
		`podAnnotations: ["pod.example/*"], containerAnnotations: ["container.example/a"]`, state))
	annotated := func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.Annotations = map[string]string{"pod.example/a": "1", "pod.example/b": "2", "other.example/a": "3"}
		req.Config.Linux.SecurityContext.Privileged = true
	}
	privileged := func(c *runtimeapi.ContainerConfig) {
		c.Annotations = map[string]string{
			"container.example/a": "4", "container.example/b": "5",
			"io.containerd.runc.v2.group": "another", "run.oci.keep_original_groups": "1",
		}
		c.Linux.SecurityContext.Privileged = true
	}
	custom := n.RunPod(t, nodetest.HostUsers, nodetest.Handler("custom"), annotated).Run(t, n.Image(t, labimage.Demo), privileged)
	plain := n.RunPod(t, nodetest.HostUsers, annotated).Run(t, n.Image(t, labimage.Demo), privileged)

	at := filepath.Join(state, labnode.Namespace)
	if _, err := os.Stat(filepath.Join(at, custom.ID, "state.json")); err != nil {
		t.Errorf("runc's state is not where the option root says: %v", err)
	}
	if _, err := os.Stat(filepath.Join(at, plain.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state of the other handler's container: %v, want none", err)
	}
	for c, want := range map[*nodetest.Container][]string{custom: {"container.example/a", "pod.example/a", "pod.example/b"}, plain: nil} {
		var got []string
		for name := range recordedSpec(t, n, c.ID).Annotations {
			if !strings.HasPrefix(name, "io.kubernetes.cri.") {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the OCI runtime sees the annotations %v, want %v", got, want)
		}
	}
	if got := plain.Exec(t, "ls", "/dev"); !strings.Contains(got, "kmsg") {
		t.Errorf("a privileged container has the devices %q, want the host's", got)
	}
	if got := custom.Exec(t, "ls", "/dev"); strings.Contains(got, "kmsg") {
		t.Errorf("with privilegedWithoutHostDevices a privileged container has the devices %q", got)
	}
	wantFailure(t, custom, "sh", "-c", "mknod /kmsg c 1 11 && head -c 1 /kmsg")
	plain.Exec(t, "sh", "-c", "mknod /kmsg c 1 11 && head -c 1 /kmsg")
}
