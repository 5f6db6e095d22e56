package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// initName is what process 1 of a shared PID namespace is called in the pod.
const initName = "/userns-shim-init"

// target puts a container into the PID namespace of another, as kubelet does with ephemeral containers.
func target(id string) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) {
		options := c.Linux.SecurityContext.NamespaceOptions
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
			Network: options.Network, Pid: runtimeapi.NamespaceMode_TARGET, TargetId: id, Ipc: options.Ipc, UsernsOptions: options.UsernsOptions,
		}
	}
}

// everyCommand are the command lines of all processes that a container sees, by process id.
func everyCommand(t *testing.T, c *nodetest.Container) map[string]string {
	t.Helper()
	seen := map[string]string{}
	script := `cd /proc; for p in [0-9]*; do echo "$p $(tr '\0' ' ' 2>/dev/null <$p/cmdline)"; done`
	for _, line := range lines(c.Exec(t, "sh", "-c", script)) {
		pid, command, _ := strings.Cut(line, " ")
		seen[pid] = strings.TrimSpace(command)
	}
	return seen
}

func sees(commands map[string]string, command string) bool {
	for _, c := range commands {
		if c == command {
			return true
		}
	}
	return false
}

// running counts the processes of the node's pods that have a command line.
func running(t *testing.T, n *nodetest.Node, command string) int {
	t.Helper()
	return len(processes(t, func(p leaks.Process) bool { return p.Cmdline == command && strings.Contains(p.Cgroups, n.Name+"/") }))
}

// initPID is the host's number of the pod's process, as its verbose status has it.
func initPID(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) int {
	t.Helper()
	return *n.PodInfo(t, pod.ID).PID
}

func TestSharedPIDNamespace(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		image := n.Image(t, labimage.Demo)
		pod := n.RunPod(t, append(opts, shareProcesses)...)
		one := pod.Run(t, image, nodetest.Command("sleep", "7101"))
		two := pod.Run(t, image, nodetest.Command("sleep", "7102"))
		for _, c := range []*nodetest.Container{one, two} {
			commands := everyCommand(t, c)
			if !sees(commands, "sleep 7101") || !sees(commands, "sleep 7102") || commands["1"] != initName {
				t.Errorf("a container sees %q, want both containers and %s as process 1", commands, initName)
			}
		}
		if got := pod.Status(t).GetLinux().GetNamespaces().GetOptions().GetPid(); got != runtimeapi.NamespaceMode_POD {
			t.Errorf("status reports the PID mode %s", got)
		}
		// Equal ids, one PID namespace: a neighbour can be signalled.
		one.Exec(t, "sh", "-c", "kill -9 $(pidof sleep | tr ' ' '\\n' | while read p; do grep -q 7102 /proc/$p/cmdline && echo $p; done)")
		if code := two.Wait(t); code != 137 {
			t.Errorf("the neighbour that was killed has exit code %d, want 137", code)
		}
		if got := one.Status(t).State; got != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("its killer is %s", got)
		}
	})
}

func TestOwnPIDNamespaces(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		image := n.Image(t, labimage.Demo)
		pod := n.RunPod(t, append(opts, pidMode(runtimeapi.NamespaceMode_CONTAINER))...)
		pod.Run(t, image, nodetest.Command("sleep", "7111"))
		two := pod.Run(t, image, nodetest.Command("sleep", "7112"))
		if commands := everyCommand(t, two); sees(commands, "sleep 7111") || commands["1"] != "sleep 7112" {
			t.Errorf("a container sees %q, want itself as process 1 and not its neighbour", commands)
		}
		if pid := initPID(t, n, pod); pid != 0 {
			t.Errorf("the sandbox reports pid %d, want none", pid)
		}
	})
}

// A pod can share its processes and nothing else.
func TestSharedPIDNamespaceInHostNamespaces(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t, nodetest.HostNetwork, shareProcesses, func(req *runtimeapi.RunPodSandboxRequest) {
		podNamespaces(req).Ipc = runtimeapi.NamespaceMode_NODE
	})
	pod.Run(t, image, nodetest.Command("sleep", "7115"))
	two := pod.Run(t, image, nodetest.Command("sleep", "7116"))
	if commands := everyCommand(t, two); !sees(commands, "sleep 7115") || commands["1"] != initName {
		t.Errorf("a container sees %q", commands)
	}
	for _, kind := range []string{"net", "ipc"} {
		if got, want := two.Exec(t, "readlink", "/proc/self/ns/"+kind), hostNamespace(t, n, kind); got != want {
			t.Errorf("the container is in %s, the node in %s", got, want)
		}
	}
}

// Pods of this kind come and go side by side.
func TestSharedPIDNamespacesSideBySide(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			pod := n.RunPod(t, shareProcesses)
			for range 3 {
				c := pod.Run(t, image)
				if got := c.Exec(t, "cat", "/proc/1/cmdline"); strings.TrimRight(got, "\x00") != initName {
					t.Errorf("process 1 is %q", got)
				}
				c.Stop(t, 0)
				c.Remove(t)
			}
			pod.Remove(t)
		})
	}
}

// A client that says nothing gets what CRI's messages default to: POD, for the sandbox and the container.
func TestDefaultPIDNamespace(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	req := n.PodRequest(t)
	req.Config.Linux.SecurityContext.NamespaceOptions = nil
	pod, err := n.TryRunPod(t, req)
	if err != nil {
		t.Fatal(err)
	}
	config := pod.ContainerConfig(image, nodetest.Command("sleep", "7121"))
	config.Linux = nil
	c, err := pod.TryCreate(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	if commands := everyCommand(t, c); commands["1"] != initName {
		t.Errorf("process 1 is %q, want %s", commands["1"], initName)
	}
}

func TestHostPIDNamespace(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t, nodetest.HostUsers, pidMode(runtimeapi.NamespaceMode_NODE))
	c := pod.Run(t, image, nodetest.Command("sleep", "7131"))
	host, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Exec(t, "readlink", "/proc/self/ns/pid"); got != host {
		t.Errorf("the container is in %s, the host in %s", got, host)
	}
	if got := c.Exec(t, "cat", fmt.Sprintf("/proc/%d/cmdline", os.Getpid())); !strings.Contains(got, "e2e") {
		t.Errorf("the container sees %q where this test runs", got)
	}
	if pid := initPID(t, n, pod); pid != 0 {
		t.Errorf("the sandbox reports pid %d, want none", pid)
	}
	pod.Stop(t)
	if left := running(t, n, "sleep 7131"); left > 0 {
		t.Errorf("%d processes outlived the pod", left)
	}
	_, err = n.TryRunPod(t, n.PodRequest(t, pidMode(runtimeapi.NamespaceMode_NODE)))
	wantError(t, err, codes.InvalidArgument, "hostPID")
}

func TestTargetPIDNamespace(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		image := n.Image(t, labimage.Demo)
		pod := n.RunPod(t, opts...)
		app := pod.Run(t, image, nodetest.Shell("echo app > /marker; exec sleep 7141"))
		pod.Run(t, image, nodetest.Command("sleep", "7142"))
		debugger := pod.Run(t, image, nodetest.Command("sleep", "7143"), target(app.ID), nodetest.Capabilities("SYS_PTRACE"))
		commands := everyCommand(t, debugger)
		if commands["1"] != "sleep 7141" || !sees(commands, "sleep 7143") || sees(commands, "sleep 7142") {
			t.Errorf("the debugger sees %q, want its target as process 1, itself, and no other container", commands)
		}
		if got := debugger.Exec(t, "cat", "/proc/1/root/marker"); got != "app" {
			t.Errorf("through its target's root the debugger reads %q", got)
		}
		if got := debugger.Exec(t, "sh", "-c", "ls /marker 2>&1 || true"); !strings.Contains(got, "No such file") {
			t.Errorf("the debugger's own root has the target's file: %q", got)
		}
		debugger.Stop(t, 0)
		if got := app.Status(t).State; got != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("after the debugger's end its target is %s", got)
		}
		second := pod.Run(t, image, nodetest.Command("sleep", "7144"), target(app.ID))
		app.Stop(t, 0)
		if code := second.Wait(t); code != 137 {
			t.Errorf("with its target a debugger ends with %d, want 137", code)
		}
	})
}

func TestTargetThatCannotBeJoined(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod, other := n.RunPod(t), n.RunPod(t)
	elsewhere := other.Run(t, image, nodetest.Command("sleep", "7151"))
	ended := pod.Run(t, image, nodetest.Command("true"))
	ended.Wait(t)
	for name, tc := range map[string]struct {
		id   string
		code codes.Code
	}{
		"none of this id": {strings.Repeat("e", 64), codes.InvalidArgument},
		"of another pod":  {elsewhere.ID, codes.InvalidArgument},
		"ended":           {ended.ID, codes.FailedPrecondition},
		"not started":     {pod.Create(t, image).ID, codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, target(tc.id)))
			wantError(t, err, tc.code, tc.id)
		})
	}
	app := pod.Run(t, image, nodetest.Command("sleep", "7152"))
	late := pod.Create(t, image, target(app.ID))
	app.Stop(t, 0)
	wantError(t, late.TryStart(t.Context()), codes.FailedPrecondition, app.ID)
	if st := late.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.Reason != "StartError" {
		t.Errorf("a container whose target was gone at its start: %s, %s", st.State, st.Reason)
	}
}
