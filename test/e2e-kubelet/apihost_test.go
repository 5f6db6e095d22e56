package e2ekubelet

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// hostNetwork has the pod's status name the node's address. That such a pod has a user namespace is new in Kubernetes, and a
// real API server lets it pass under a feature gate only.
func hostNetwork(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	p := n.runAPI(t, api, hostUsers, "hostNetwork: true"+sleeper)
	p.ready(t)
	p.awaitObject(t, "has the node's address", func(now *corev1.Pod) error {
		if now.Status.PodIP != labnode.NodeIP {
			return fmt.Errorf("its address is %q", now.Status.PodIP)
		}
		return nil
	})
	host, err := os.Readlink(n.World.ProcDir() + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.sh(t, "readlink /proc/self/ns/net"); got != host {
		t.Errorf("the pod's network is %s, the node's %s", got, host)
	}
	if !hostUsers {
		p.wantRange(t)
	}
}

// usersAndGroups has a container that is not in the groups which its image gives to the user, and one that is; and kubelet
// tell which ids they have.
func usersAndGroups(t *testing.T, n *node, api *apiServer, hostUsers bool) {
	for policy, want := range map[corev1.SupplementalGroupsPolicy]string{
		corev1.SupplementalGroupsPolicyStrict: "1000 3000 4000", corev1.SupplementalGroupsPolicyMerge: "1000 2000 3000 4000",
	} {
		p := n.runAPI(t, api, hostUsers, `
securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000, supplementalGroups: [4000], supplementalGroupsPolicy: `+string(policy)+`}
containers: [{name: main, image: IMAGE, command: [sleep, infinity]}]
`)
		user := status(p.ready(t), "main").User
		if user == nil || user.Linux == nil || user.Linux.UID != 1000 || user.Linux.GID != 1000 {
			t.Fatalf("the container's user is %+v", user)
		}
		groups := slices.Sorted(slices.Values(user.Linux.SupplementalGroups))
		if got := strings.Trim(fmt.Sprint(groups), "[]"); got != want {
			t.Errorf("%s: kubelet tells of the groups %s, want %s", policy, got, want)
		}
		inside := strings.Fields(p.sh(t, "id -G"))
		if slices.Sort(inside); strings.Join(inside, " ") != want {
			t.Errorf("%s: the container has the groups %s, want %s", policy, inside, want)
		}
	}
}
