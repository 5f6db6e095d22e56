package selftest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

const (
	// namespace is that of the pods.
	namespace = "userns-shim-selftest"
	// label carries the token on all that the test makes.
	label = "userns-shim.io/selftest"
	// execSeconds is how long the look around in a container may take.
	execSeconds = 30
)

// podSeen is one pod. Where down says why there is none, the rest says nothing.
type podSeen struct {
	absent      string // why it was not started, empty when it was
	err         error  // why it does not run though it was started
	sandbox     string
	container   string
	hostNetwork bool
	// drawn is the mapping that the test sent because the runtime did not choose one; refused is why.
	drawn   *Extent
	refused error

	status    *runtimeapi.PodSandboxStatus
	statusErr error
	file      string // that the container made
	facts     inside.Facts
	factsErr  error
	// pid is the host's for the container's process, 0 with pidErr.
	pid     int
	pidErr  error
	made    inside.Owner // of file, for the host
	madeErr error
}

// down is why the pod does not run, empty when it does.
func (p *podSeen) down() string {
	if p.absent == "" && p.err != nil {
		return "the pod does not run"
	}
	return p.absent
}

// mute is why nothing is known of the inside of the pod, empty when it is.
func (p *podSeen) mute() string {
	if p.down() == "" && p.factsErr != nil {
		return "the pod tells nothing"
	}
	return p.down()
}

func (r *run) podToken(number int) string { return r.token + "-" + strconv.Itoa(number) }

// startPod runs a sandbox and a container in it that waits.
func (r *run) startPod(ctx context.Context, number int, hostNetwork bool) podSeen {
	token := r.podToken(number)
	pod := podSeen{hostNetwork: hostNetwork, file: "/" + token}
	config := r.sandboxConfig(token, hostNetwork)
	if pod.err = r.runSandbox(ctx, &pod, config); pod.err != nil {
		return pod
	}
	created, err := call(ctx, r.runtime.CreateContainer, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.sandbox, SandboxConfig: config, Config: r.containerConfig(token, config),
	})
	if err != nil {
		pod.err = fmt.Errorf("create container: %w", err)
		return pod
	}
	pod.container = created.GetContainerId()
	if _, err := call(ctx, r.runtime.StartContainer, &runtimeapi.StartContainerRequest{ContainerId: pod.container}); err != nil {
		pod.err = fmt.Errorf("start container: %w", err)
		return pod
	}
	pod.pid, pod.pidErr = r.opts.Host.FindProcess(token)
	return pod
}

// runSandbox first leaves the mapping to the runtime. Where that does not give one it sends one, as kubelet does
// always: containerd and CRI-O leave the choice to kubelet.
func (r *run) runSandbox(ctx context.Context, pod *podSeen, config *runtimeapi.PodSandboxConfig) error {
	req := &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: r.opts.RuntimeHandler}
	resp, err := call(ctx, r.runtime.RunPodSandbox, req)
	if err == nil {
		pod.sandbox = resp.GetPodSandboxId()
		if r.choseMapping(ctx, pod.sandbox) {
			return nil
		}
		err = errNotChosen
	}
	pod.refused = err
	if err := r.drawMapping(pod); err != nil {
		return fmt.Errorf("run sandbox: %w; draw a mapping: %w", pod.refused, err)
	}
	ids := []*runtimeapi.IDMapping{{HostId: pod.drawn.Start, ContainerId: 0, Length: idsPerPod}}
	users := config.Linux.SecurityContext.NamespaceOptions.UsernsOptions
	users.Uids, users.Gids = ids, ids
	config.Metadata.Attempt++
	if resp, err = call(ctx, r.runtime.RunPodSandbox, req); err != nil {
		return fmt.Errorf("run sandbox: without a mapping: %w; with the mapping %s: %w", pod.refused, pod.drawn, err)
	}
	pod.sandbox = resp.GetPodSandboxId()
	return nil
}

// errNotChosen is CRI-O's way: the pod runs, in the host's user namespace. The clean-up removes it too.
var errNotChosen = errors.New("the runtime runs the pod and reports no mapping")

// choseMapping is in doubt true: what the pod really has is checked from its inside.
func (r *run) choseMapping(ctx context.Context, sandbox string) bool {
	status, err := call(ctx, r.runtime.PodSandboxStatus, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
	return err != nil || len(status.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetUids()) > 0
}

func (r *run) drawMapping(pod *podSeen) error {
	used, err := r.opts.Host.MappedIDs()
	if err != nil {
		return err
	}
	drawn, err := draw(r.opts.IDs, append(used, r.drawn...))
	if err != nil {
		return err
	}
	r.drawn = append(r.drawn, drawn)
	pod.drawn = &drawn
	return nil
}

func (r *run) sandboxConfig(token string, hostNetwork bool) *runtimeapi.PodSandboxConfig {
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: token, Namespace: namespace, Uid: token},
		Labels:   r.labels(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: r.opts.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Pid:           runtimeapi.NamespaceMode_CONTAINER,
					UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD},
				},
			},
		},
	}
	if hostNetwork {
		config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		return config
	}
	config.Hostname = token
	return config
}

// containerConfig lifts the runtime's own confinement, so that the answer to a mount is the kernel's.
func (r *run) containerConfig(token string, sandbox *runtimeapi.PodSandboxConfig) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: token},
		Image:    &runtimeapi.ImageSpec{Image: r.image},
		Command:  r.program.Wait(token),
		Labels:   r.labels(),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: sandbox.Linux.SecurityContext.NamespaceOptions,
				Capabilities:     &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
				Apparmor:         &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
			},
		},
	}
}

func (r *run) labels() map[string]string { return map[string]string{label: r.token} }

// lookInto gathers what the runtime, the container and the host see of a pod. The other pod's process is
// one that this pod must not be able to signal.
func (r *run) lookInto(ctx context.Context, pod *podSeen, otherPID int) {
	status, err := call(ctx, r.runtime.PodSandboxStatus, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.sandbox})
	pod.status, pod.statusErr = status.GetStatus(), err
	pod.facts, pod.factsErr = r.ask(ctx, pod, otherPID)
	pod.madeErr = pod.pidErr
	if pod.pidErr == nil {
		pod.made, pod.madeErr = r.opts.Host.Owner(pod.pid, pod.file)
	}
}

func (r *run) ask(ctx context.Context, pod *podSeen, otherPID int) (inside.Facts, error) {
	resp, err := call(ctx, r.runtime.ExecSync, &runtimeapi.ExecSyncRequest{
		ContainerId: pod.container,
		Cmd:         r.program.Look(inside.Request{File: pod.file, Witness: r.program.Witness, PID: otherPID}),
		Timeout:     execSeconds,
	})
	if err != nil {
		return inside.Facts{}, fmt.Errorf("exec in the container: %w", err)
	}
	if resp.GetExitCode() != 0 {
		return inside.Facts{}, fmt.Errorf("the program in the container exits with %d: %.500s", resp.GetExitCode(), resp.GetStderr())
	}
	return inside.Parse(resp.GetStdout())
}
