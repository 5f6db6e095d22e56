package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestInitReapsZombies(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, append(opts, shareProcesses)...)
		c := pod.Run(t, n.Image(t, labimage.Demo))
		pid := initPID(t, n, pod)
		// An orphan that ends later, and one that is a zombie already when it becomes one.
		c.Exec(t, "sh", "-c", "(sleep 7161 >/dev/null 2>&1 &); sh -c 'sleep 0 & exec sleep 0.3'")
		orphans := func() []leaks.Process {
			all, err := leaks.Processes()
			if err != nil {
				t.Fatal(err)
			}
			var found []leaks.Process
			for _, p := range all {
				if p.Parent == pid {
					found = append(found, p)
				}
			}
			return found
		}
		var orphan int
		eventually(t, "init's only child is the orphan that lives", func() bool {
			found := orphans()
			if len(found) != 1 || found[0].Cmdline != "sleep 7161" {
				return false
			}
			orphan = found[0].PID
			return true
		})
		killProcess(t, orphan)
		eventually(t, "init has no child", func() bool { return len(orphans()) == 0 })
	})
}

// The init is of no use to anybody who gets hold of it.
func TestInitIsConfined(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, append(opts, shareProcesses)...)
		pid := initPID(t, n, pod)
		first := uint32(0)
		if len(opts) == 0 {
			first = pod.Range(t)
		}
		id := strconv.Itoa(int(first) + 65535)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"Uid: " + strings.Join([]string{id, id, id, id}, " "), "Gid: " + strings.Join([]string{id, id, id, id}, " "), "Groups:",
			"CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2",
		} {
			if !strings.Contains("\n"+status2lines(status), "\n"+want+"\n") {
				t.Errorf("status of init has no line %q:\n%s", want, status)
			}
		}
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		if want := pod.Request.Config.Linux.CgroupParent + "/" + pod.ID + "\n"; !strings.Contains(string(cgroups), want) {
			t.Errorf("init is in the cgroups\n%swant %s", cgroups, want)
		}
		// Who may trace it, which takes a capability, finds nothing of the host.
		c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Capabilities("SYS_PTRACE"))
		if got := c.Exec(t, "ls", "/proc/1/root"); fields(got) != "dev proc userns-shim-init" {
			t.Errorf("init's root has %q", got)
		}
		if got := c.Exec(t, "sh", "-c", "cd /proc/1/root; cat proc/keys proc/timer_list"); got != "" {
			t.Errorf("the masked part of init's /proc has %q", got)
		}
		for _, write := range []string{"echo x > /proc/1/root/userns-shim-init", "echo x > /proc/1/exe", "mkdir /proc/1/root/x", "mkdir /proc/1/root/dev/x", "echo 1 > /proc/1/root/proc/sys/vm/drop_caches", "echo x > /proc/1/root/proc/sysrq-trigger"} {
			resp, err := c.TryExec(t.Context(), "sh", "-c", write)
			if err != nil || resp.ExitCode == 0 {
				t.Errorf("%s: %v, %v", write, resp, err)
			}
		}
	})
}

// status2lines joins the words of each line with single spaces.
func status2lines(text []byte) string {
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		out.WriteString(fields(line) + "\n")
	}
	return out.String()
}

// A container that shares the PID namespace ends with all its processes and with no other's.
func TestStopInSharedPIDNamespace(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		image := n.Image(t, labimage.Demo)
		pod := n.RunPod(t, append(opts, shareProcesses)...)
		neighbour := pod.Run(t, image, nodetest.Command("sleep", "7171"))
		running := func(command string) int { return running(t, n, command) }
		for name, end := range map[string]func(*nodetest.Container){
			"killed":         func(c *nodetest.Container) { c.Stop(t, 0) },
			"asked to stop":  func(c *nodetest.Container) { c.Stop(t, 20*time.Second) },
			"first one ends": func(c *nodetest.Container) { c.Exec(t, "touch", "/end") },
		} {
			c := pod.Run(t, image, nodetest.Shell("trap 'exit 0' TERM; (trap '' TERM; sleep 7172 & setsid sleep 7173 & wait) & until [ -e /end ]; do sleep 0.05; done"))
			eventually(t, "the container's processes run", func() bool { return running("sleep 7172") == 1 && running("sleep 7173") == 1 })
			began := time.Now()
			end(c)
			c.Wait(t)
			eventually(t, name+": no process of the container is left", func() bool { return running("sleep 7172")+running("sleep 7173") == 0 })
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("%s: it took %s", name, took)
			}
			c.Remove(t)
		}
		if got := neighbour.Status(t).State; got != runtimeapi.ContainerState_CONTAINER_RUNNING || running("sleep 7171") != 1 {
			t.Errorf("the neighbour is %s", got)
		}
		// The command's child goes on, and is nobody's to wait for.
		began := time.Now()
		if got := neighbour.Exec(t, "sh", "-c", "sleep 7174 >/dev/null 2>&1 & echo done"); got != "done" || time.Since(began) > 6*time.Second {
			t.Errorf("exec with a child in the background prints %q after %s", got, time.Since(began))
		}
		neighbour.Stop(t, 0)
		eventually(t, "the child of an exec ends with its container", func() bool { return running("sleep 7174") == 0 })
	})
}

func TestInitThatDies(t *testing.T) {
	n := sharedNode(t)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		image := n.Image(t, labimage.Demo)
		pod := n.RunPod(t, append(opts, shareProcesses)...)
		c := pod.Run(t, image, nodetest.Command("sleep", "7181"))
		// From inside it is immune to what kills others, and to what the Go runtime has handlers for.
		c.Exec(t, "sh", "-c", "kill -9 1; kill -QUIT 1; kill -HUP 1; kill -SEGV 1; kill -STOP 1; sleep 0.2; kill -0 1 || [ $(id -u) != 0 ]")
		if got := pod.Status(t).State; got != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Fatalf("after signals from inside the pod is %s", got)
		}
		killProcess(t, initPID(t, n, pod))
		eventually(t, "the pod is not ready", func() bool {
			return pod.Status(t).State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		})
		if code := c.Wait(t); code != 137 {
			t.Errorf("the container's exit code is %d, want 137", code)
		}
		if pid := initPID(t, n, pod); pid != 0 {
			t.Errorf("the sandbox reports pid %d, want none", pid)
		}
		_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image))
		wantError(t, err, codes.FailedPrecondition, pod.ID)
		// kubelet stops what is left and makes the pod anew beside it.
		pod.Stop(t)
		pod.Request.Config.Metadata.Attempt = 1
		again, err := n.TryRunPod(t, pod.Request)
		if err != nil {
			t.Fatal(err)
		}
		again.Run(t, image).Exec(t, "true")
	})
}

func killProcess(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("asked to kill process %d", pid)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

func TestRestartKeepsSharedPIDNamespace(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	pods := []*nodetest.Pod{n.RunPod(t, shareProcesses), n.RunPod(t, shareProcesses), n.RunPod(t, nodetest.HostUsers, shareProcesses)}
	c := pods[0].Run(t, image, nodetest.Command("sleep", "7191"))
	app := pods[2].Run(t, image)
	created := pods[2].Create(t, image, nodetest.Command("sleep", "7193"), target(app.ID))
	pids := []int{initPID(t, n, pods[0]), initPID(t, n, pods[1])}
	crash(t, n, func() { killProcess(t, pids[1]) })
	if got := pods[1].Status(t).State; got != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a pod whose init died meanwhile is %s", got)
	}
	if got := initPID(t, n, pods[0]); got != pids[0] {
		t.Errorf("pid %d after the restart, had %d", got, pids[0])
	}
	two := pods[0].Run(t, image, nodetest.Command("sleep", "7192"))
	if commands := everyCommand(t, two); !sees(commands, "sleep 7191") || commands["1"] != initName {
		t.Errorf("a container that was started after the restart sees %q", commands)
	}
	created.Start(t)
	crash(t, n)
	killProcess(t, pids[0])
	eventually(t, "the pod is not ready", func() bool {
		return pods[0].Status(t).State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
	for _, ended := range []*nodetest.Container{c, two} {
		if code := ended.Wait(t); code != 137 {
			t.Errorf("exit code %d, want 137", code)
		}
	}
}

// Without its program only the pods that need it are refused.
func TestMissingInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, err := os.ReadFile(shared.programs(t).daemon)
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(dir, "userns-shim")
	if err := os.WriteFile(alone, program, 0o755); err != nil {
		t.Fatal(err)
	}
	n := nodetest.Start(t, labnode.Options{Binary: alone})
	image := n.Image(t, labimage.Demo)
	missing := filepath.Join(dir, "userns-shim-init")
	_, err = n.TryRunPod(t, n.PodRequest(t, shareProcesses))
	wantError(t, err, codes.FailedPrecondition, missing, "sandboxInit")
	n.RunPod(t).Run(t, image).Exec(t, "true")
	if err := os.WriteFile(missing, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = n.TryRunPod(t, n.PodRequest(t, shareProcesses))
	wantError(t, err, codes.FailedPrecondition, missing, "execute")
}
