package e2ekubelet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
)

// TestKubeletPullsImages has kubelet pull an image that is not on the node, once for two pods, and tell why it cannot pull another.
func TestKubeletPullsImages(t *testing.T) {
	n := parallelNode(t)
	const name = "pulled:by-kubelet"
	digest := n.PushImage(t, name, labimage.Catalogue(n.Box())[labimage.User])
	spec := fmt.Sprintf(`
containers: [{name: main, image: %s}]
`, n.Registry.Ref(name))
	for _, hostUsers := range []bool{false, true} {
		p := n.run(t, hostUsers, spec)
		if got := status(p.ready(t), "main").ImageID; !strings.HasSuffix(got, digest) {
			t.Errorf("the container's image is %q, want %s", got, digest)
		}
		if got := p.sh(t, "id -un"); got != "nonroot" {
			t.Errorf("the container runs as %q, want the image's user", got)
		}
	}
	if got := n.Registry.Requests("GET /v2/pulled/manifests/" + digest); got != 1 {
		t.Errorf("the manifest was fetched %d times, want once", got)
	}
	p := n.run(t, false, strings.ReplaceAll(spec, name, "missing:latest"))
	p.await(t, "cannot be pulled", func(now *corev1.Pod) error {
		waiting := status(now, "main").State.Waiting
		if waiting == nil || !strings.Contains(waiting.Reason, "ImagePull") || !strings.Contains(waiting.Message, "missing:latest") || !strings.Contains(waiting.Message, "not found") {
			return errors.New(states(now))
		}
		return nil
	})
}
