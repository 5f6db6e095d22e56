package e2ekubelet

import (
	"context"
	"fmt"
	"path"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
)

// pinnedImages are those that the node's configuration keeps from kubelet's garbage collection.
const pinnedImages = "*/pinned:*"

// TestNodeWithoutSpace tells kubelet to keep more of the image filesystem free than there is: it removes the containers
// that have ended and the images that nobody uses, and leaves what runs and what is pinned.
func TestNodeWithoutSpace(t *testing.T) {
	n := sharedNode(t)
	catalogue := labimage.Catalogue(n.Box())
	unused, pinned := n.ImageOf(t, "unused:latest", catalogue[labimage.Layers40]), n.ImageOf(t, "pinned:latest", catalogue[labimage.Entrypoint])
	volume := n.ImageOf(t, "volume-of-pod:latest", catalogue[labimage.Volume])
	pods := []*pod{n.run(t, false, sleeper), n.run(t, true, `
containers: [{name: main, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: image, mountPath: /image}]}]
volumes: [{name: image, image: {reference: "`+volume+`", pullPolicy: IfNotPresent}}]
`)}
	done := n.run(t, false, "restartPolicy: Never\ncontainers: [{name: main, image: IMAGE, command: ['true']}]\n")
	done.ended(t, corev1.PodSucceeded)
	before, free := runningContainers(t, pods), n.imageFs(t)
	opts := n.defaults()
	opts.Config["evictionHard"] = map[string]string{"imagefs.available": "1000Ti"}
	opts.Config["imageMinimumGCAge"] = "1ms"
	n.restartKubelet(t, opts)
	eventually(t, "what nobody uses is removed", func() error {
		if left := done.containers(t); len(left) > 0 {
			return fmt.Errorf("the containers %v are left", left)
		}
		if n.hasImage(t, unused) {
			return fmt.Errorf("%s is left", unused)
		}
		return nil
	})
	for _, ref := range []string{pinned, volume, n.image} {
		if !n.hasImage(t, ref) {
			t.Errorf("%s has gone", path.Base(ref))
		}
	}
	n.restartKubelet(t, n.defaults())
	wantSame(t, pods, before)
	eventually(t, "kubelet tells of less that images take", func() error {
		if now := n.imageFs(t); *now.UsedBytes >= *free.UsedBytes {
			return fmt.Errorf("%d bytes, as before: %d", *now.UsedBytes, *free.UsedBytes)
		}
		return nil
	})
}

func (n *node) hasImage(t *testing.T, ref string) bool {
	t.Helper()
	resp, err := n.Images.ImageStatus(context.WithoutCancel(t.Context()), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Image != nil
}
