package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/installer"
)

// criRuntimes is installer.Runtimes over the runtimes' own sockets.
type criRuntimes struct{}

var _ installer.Runtimes = criRuntimes{}

// stopTimeout is what a container gets to end by itself, in seconds: kubelet's default.
const stopTimeout = 30

func (criRuntimes) with(socket string, do func(runtimeapi.RuntimeServiceClient) error) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	return errors.Join(do(runtimeapi.NewRuntimeServiceClient(conn)), conn.Close())
}

// Ready implements installer.Runtimes. A network that is not there yet, as on a node whose CNI plugin is a pod, is no reason.
func (c criRuntimes) Ready(ctx context.Context, socket string) error {
	return c.with(socket, func(runtime runtimeapi.RuntimeServiceClient) error {
		resp, err := runtime.Status(ctx, &runtimeapi.StatusRequest{})
		if err != nil {
			return fmt.Errorf("ask %s for its status: %w", socket, err)
		}
		for _, condition := range resp.GetStatus().GetConditions() {
			if condition.GetType() == runtimeapi.RuntimeReady {
				if condition.GetStatus() {
					return nil
				}
				return fmt.Errorf("%s is not ready: %s", socket, condition.GetMessage())
			}
		}
		return fmt.Errorf("%s does not say whether it is ready", socket)
	})
}

// RemovePods implements installer.Runtimes. A runtime that is not there has no pods, nor has a containerd whose CRI
// plugin is off.
func (c criRuntimes) RemovePods(ctx context.Context, socket string) error {
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.with(socket, func(runtime runtimeapi.RuntimeServiceClient) error {
		containers, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
			Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}},
		})
		if status.Code(err) == codes.Unimplemented {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list containers: %w", err)
		}
		if err := stopAll(ctx, runtime, containers.GetContainers()); err != nil {
			return err
		}
		pods, err := runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		var errs []error
		for _, pod := range pods.GetItems() {
			errs = append(errs, removePod(ctx, runtime, pod))
		}
		return errors.Join(errs...)
	})
}

// stopAll stops containers side by side, for each may take its time.
func stopAll(ctx context.Context, runtime runtimeapi.RuntimeServiceClient, containers []*runtimeapi.Container) error {
	done := make(chan error, len(containers))
	for _, c := range containers {
		go func() {
			_, err := runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.GetId(), Timeout: stopTimeout})
			if err != nil {
				err = fmt.Errorf("stop container %s: %w", c.GetId(), err)
			}
			done <- err
		}()
	}
	var errs []error
	for range containers {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

func removePod(ctx context.Context, runtime runtimeapi.RuntimeServiceClient, pod *runtimeapi.PodSandbox) error {
	name := pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName()
	if _, err := runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
		return fmt.Errorf("stop pod %s: %w", name, err)
	}
	if _, err := runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.GetId()}); err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	return nil
}
