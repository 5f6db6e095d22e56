package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// idCount asks for a number of ids, as a pod's author does.
func idCount(text string) nodetest.PodOption {
	return nodetest.Annotation(sandbox.AnnotationIDs, text)
}

// TestPodWithTheIDsThatItAsksFor: the annotation gives a pod more than 65536 ids, all of which work, whatever mapping
// kubelet sends beside it.
func TestPodWithTheIDsThatItAsksFor(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "wide binaryName: runc, maxIDsPerPod: 262144", "always binaryName: runc, userNamespaces: always, maxIDsPerPod: 262144")
	kubelets := nodetest.Mapping(n.Kubelet().Start)
	for name, tc := range map[string]struct {
		opts []nodetest.PodOption
		want uint32
	}{
		"two ranges":               {[]nodetest.PodOption{idCount("131072")}, 131072},
		"beside kubelet's mapping": {[]nodetest.PodOption{idCount("196608"), kubelets}, 196608},
		"as many as may be":        {[]nodetest.PodOption{idCount("262144")}, 262144},
		"unasked":                  {[]nodetest.PodOption{idCount("131072"), nodetest.HostUsers, nodetest.Handler("always")}, 131072},
		"shared processes":         {[]nodetest.PodOption{idCount("131072"), shareProcesses}, 131072},
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, append([]nodetest.PodOption{nodetest.Handler("wide")}, tc.opts...)...)
			ids := pod.IDs(t)
			if ids.Length != tc.want || !n.Pool().Contains(ids.Start) || ids.Start%65536 != 0 {
				t.Errorf("the pod has %+v, want %d ids of the pool", ids, tc.want)
			}
			wantWidePod(t, n, pod)
		})
	}
	t.Run("one range is kubelet's", func(t *testing.T) {
		pod := n.RunPod(t, nodetest.Handler("wide"), idCount("65536"), kubelets)
		if got := pod.Range(t); got != n.Kubelet().Start {
			t.Errorf("a pod that asks for what kubelet gives it has the range %d, want %d", got, n.Kubelet().Start)
		}
	})
}

// TestPodWithTheIDsThatKubeletSends: kubelet's option idsPerPod makes it send longer mappings.
func TestPodWithTheIDsThatKubeletSends(t *testing.T) {
	n := sharedNode(t)
	want := labnode.Extent{Start: n.Kubelet().Start + 8*65536, Length: 4 * 65536}
	pod := n.RunPod(t, nodetest.MappingOf(want))
	if got := pod.IDs(t); got != want {
		t.Errorf("the pod has %+v, want %+v", got, want)
	}
	wantWidePod(t, n, pod)
	// Its ids are all its own.
	other := n.RunPod(t, nodetest.Mapping(want.Start+3*65536))
	if got := other.Range(t); !n.Pool().Contains(got) {
		t.Errorf("a pod that claims the last 65536 of them has the range %d, want one of the pool", got)
	}
	// Another length than the first one's, when it is remapped.
	wide := n.RunPod(t, nodetest.MappingOf(labnode.Extent{Start: want.Start + 65536, Length: 2 * 65536}))
	if got := wide.IDs(t); !n.Pool().Contains(got.Start) || got.Length != 2*65536 {
		t.Errorf("a pod that claims 131072 ids in the middle has %+v, want as many of the pool", got)
	}
}

// wantWidePod holds that ids above 65535 of a pod are ids as all others.
func wantWidePod(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) {
	t.Helper()
	const user = 70000
	ids, dir := pod.IDs(t), volume(t, n)
	write(t, filepath.Join(dir, "given"), "from the host\n", user, user+1)
	root := pod.Run(t, n.Image(t, labimage.Owners), nodetest.Mount(dir, "/vol"), nodetest.ReadOnlyMount(dir, "/ro"))
	for _, file := range []string{"uid_map", "gid_map"} {
		if got, want := fields(root.Exec(t, "cat", "/proc/self/"+file)), fmt.Sprintf("0 %d %d", ids.Start, ids.Length); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	for path, want := range map[string]int{
		"/owners/65536": 65536, "/owners/100000": 100000, "/owners/2000000000": overflow, "/vol/given": user, "/ro/given": user,
	} {
		if got := root.Exec(t, "stat", "-c", "%u", path); got != fmt.Sprint(want) {
			t.Errorf("%s belongs to %s inside, want %d", path, got, want)
		}
	}
	for _, path := range layersWith(t, n, "/owners/100000") {
		if got := ownerOf(t, path); got != (owner{UID: 100000, GID: 100000}) {
			t.Errorf("%s belongs to %+v on disk, want 100000", path, got)
		}
	}
	root.Exec(t, "chown", "131071:70001", "/owners/100000")
	if got, want := ownerOf(t, root.HostPath(t, "/owners/100000")), (owner{UID: ids.Start + 131071, GID: ids.Start + 70001}); got != want {
		t.Errorf("a changed image file belongs to %+v on the host, want %+v", got, want)
	}
	wantFailure(t, root, "chown", fmt.Sprint(ids.Length), "/owners/0")

	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Mount(dir, "/vol"), nodetest.User(user, user+1))
	c.Exec(t, "sh", "-c", "echo more >> /vol/given && touch /vol/made /tmp/made")
	if got, want := c.Exec(t, "stat", "-c", "%u:%g", "/tmp/made"), fmt.Sprintf("%d:%d", user, user+1); got != want {
		t.Errorf("what the user makes belongs to %s inside, want %s", got, want)
	}
	for path, want := range map[string]owner{
		c.HostPath(t, "/tmp/made"):        {UID: ids.Start + user, GID: ids.Start + user + 1},
		filepath.Join(dir, "made"):        {UID: user, GID: user + 1},
		fmt.Sprintf("/proc/%d", c.PID(t)): {UID: ids.Start + user, GID: ids.Start + user + 1},
	} {
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s belongs to %+v on the host, want %+v", path, got, want)
		}
	}
}

// TestIDsThatAPodMayNotHave: what the handler does not allow and what makes no sense is refused with the reason.
func TestIDsThatAPodMayNotHave(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "wide binaryName: runc, maxIDsPerPod: 131072", "always binaryName: runc, userNamespaces: always, maxIDsPerPod: 131072")
	wide := nodetest.Handler("wide")
	refused := func(name string, code codes.Code, says string, opts ...nodetest.PodOption) {
		t.Run(name, func(t *testing.T) {
			_, err := n.TryRunPod(t, n.PodRequest(t, opts...))
			wantError(t, err, code, sandbox.AnnotationIDs, says)
		})
	}
	refused("handler that allows none", codes.FailedPrecondition, `maxIDsPerPod of runtime handler "runc" is 0`, idCount("131072"))
	refused("even one range", codes.FailedPrecondition, "maxIDsPerPod", idCount("65536"))
	refused("more than the handler allows", codes.FailedPrecondition, `"wide" is 131072`, wide, idCount("196608"))
	for _, text := range []string{"", "0", "-65536", "65537", "100000", "0131072", "131072 ", "128Ki", "0x20000", "4294967296", "4294901760", "18446744073709617152"} {
		refused(fmt.Sprintf("%q", text), codes.InvalidArgument, "no multiple of 65536", wide, idCount(text))
	}
	refused("pod with the host's users", codes.InvalidArgument, "host's user namespace", wide, idCount("131072"), nodetest.HostUsers)
	refused("host PID on a handler with always", codes.InvalidArgument, "host's user namespace", idCount("131072"), nodetest.HostUsers,
		nodetest.Handler("always"), pidMode(runtimeapi.NamespaceMode_NODE))
	refused("beside a reservation", codes.InvalidArgument, "own length", wide, idCount("131072"), nodetest.Annotation(sandbox.AnnotationReservation, "x"))
	n.RunPod(t, wide)
}
