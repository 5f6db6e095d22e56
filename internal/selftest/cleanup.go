package selftest

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cleanUp removes whatever carries the token and returns what is left of it after that. It goes by
// what the runtime lists, so that a pod whose start failed half-way is found too.
func (r *run) cleanUp(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	var left []string
	note := func(what string, err error) {
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", what, err))
		}
	}
	pods, err := r.ownPods(ctx)
	note("list pods", err)
	for _, id := range pods {
		_, err := call(ctx, r.runtime.StopPodSandbox, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
		note("stop pod "+id, err)
		_, err = call(ctx, r.runtime.RemovePodSandbox, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
		note("remove pod "+id, err)
	}
	note("remove image "+r.remove, r.removeImage(ctx))
	pods, err = r.ownPods(ctx)
	note("list pods", err)
	for _, id := range pods {
		left = append(left, "pod "+id)
	}
	containers, err := r.ownContainers(ctx)
	note("list containers", err)
	for _, id := range containers {
		left = append(left, "container "+id)
	}
	return left
}

// removeImage removes the image that the test has pulled, if there is one.
func (r *run) removeImage(ctx context.Context) error {
	if r.remove == "" {
		return nil
	}
	_, err := call(ctx, r.images.RemoveImage, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: r.remove}})
	if err != nil {
		return err
	}
	image, err := r.present(ctx, r.remove)
	if err == nil && image != nil {
		err = fmt.Errorf("it is still there as %s", image.GetId())
	}
	return err
}

func (r *run) ownPods(ctx context.Context) ([]string, error) {
	list, err := call(ctx, r.runtime.ListPodSandbox, &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{LabelSelector: r.labels()},
	})
	var ids []string
	for _, pod := range list.GetItems() {
		// A runtime that ignores the filter must not lose others' pods.
		if pod.GetLabels()[label] == r.token {
			ids = append(ids, pod.GetId())
		}
	}
	return ids, err
}

func (r *run) ownContainers(ctx context.Context) ([]string, error) {
	list, err := call(ctx, r.runtime.ListContainers, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{LabelSelector: r.labels()},
	})
	var ids []string
	for _, container := range list.GetContainers() {
		if container.GetLabels()[label] == r.token {
			ids = append(ids, container.GetId())
		}
	}
	return ids, err
}
