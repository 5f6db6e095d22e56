package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestSecondPodCannotReachTheFirst gives the second pod the whole of the host's files and processes to look
// at, through a hostPath of /, and in-pod root with every capability. What keeps it out are the ids.
func TestSecondPodCannotReachTheFirst(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	first := n.RunPod(t).Run(t, image, nodetest.Shell("echo secret > /secret && chmod 600 /secret && exec sleep 7777"))
	first.AwaitLog(t, "opened", func(nodetest.ContainerLog) bool { _, err := os.Stat(first.HostPath(t, "/secret")); return err == nil })
	second := n.RunPod(t).Run(t, image, nodetest.Mount("/", "/host"), nodetest.Capabilities("ALL"), nodetest.Unconfined)
	pid := first.PID(t)

	refused := func(what string, argv ...string) {
		t.Helper()
		resp, err := second.TryExec(t.Context(), argv...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if resp.ExitCode == 0 {
			t.Errorf("the second pod can %s: %s", what, resp.Stdout)
		}
	}
	refused("signal a process by the host's pid", "kill", "-0", strconv.Itoa(pid))
	refused("read a process's environment", "cat", fmt.Sprintf("/host/proc/%d/environ", pid))
	refused("follow a process's root directory", "ls", fmt.Sprintf("/host/proc/%d/root/", pid))
	refused("read a process's memory map", "cat", fmt.Sprintf("/host/proc/%d/maps", pid))

	if out := second.Exec(t, "ps", "-o", "args"); strings.Contains(out, "sleep 7777") {
		t.Errorf("the second pod sees the first's process:\n%s", out)
	}
	second.Exec(t, "sh", "-c", "kill -9 -1 || true")
	if got := first.Exec(t, "cat", "/secret"); got != "secret" {
		t.Errorf("the first pod's file holds %q after the second killed all it could", got)
	}
}

// TestSecondPodCannotReadAFileOfTheFirst looks at the file on disk, below the writable layer.
func TestSecondPodCannotReadAFileOfTheFirst(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	first := n.RunPod(t).Run(t, image)
	first.Exec(t, "sh", "-c", "echo secret > /secret && chmod 600 /secret && echo open > /open")
	second := n.RunPod(t).Run(t, image, nodetest.Mount(snapshotsDir(n), "/snapshots"), nodetest.Capabilities("ALL"))

	collectGarbage(t, n) // an earlier test's pod may have had such a file
	found := second.Exec(t, "sh", "-c", "ls -d /snapshots/*/fs/secret")
	if got := second.Exec(t, "stat", "-c", "%u:%g", found); got != fmt.Sprintf("%d:%d", overflow, overflow) {
		t.Errorf("the first pod's file shows as %s in the second, want overflow", got)
	}
	for _, script := range []string{"cat " + found, "echo x > " + found, "chown 0:0 " + found, "chmod 644 " + found} {
		resp, err := second.TryExec(t.Context(), "sh", "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ExitCode == 0 {
			t.Errorf("%q in the second pod works on a file of the first: %s", script, resp.Stdout)
		}
	}
	if got := first.Exec(t, "cat", "/secret"); got != "secret" {
		t.Errorf("the first pod's file holds %q now", got)
	}
}

func TestPodsHaveNamespacesOfTheirOwn(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	one, two := n.RunPod(t).Run(t, image), n.RunPod(t).Run(t, image)
	for _, kind := range []string{"user", "net", "ipc", "uts", "pid", "mnt"} {
		a, b := one.Exec(t, "readlink", "/proc/self/ns/"+kind), two.Exec(t, "readlink", "/proc/self/ns/"+kind)
		if host := hostNamespace(t, n, kind); a == b || a == host || b == host {
			t.Errorf("%s namespaces: %s and %s in two pods, %s on the node; want three", kind, a, b, host)
		}
	}
}

func TestContainersOfAPodShareItsNamespaces(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	one, two := pod.Run(t, image), pod.Run(t, image)
	for _, kind := range []string{"user", "net", "ipc", "uts"} {
		a, b := one.Exec(t, "readlink", "/proc/self/ns/"+kind), two.Exec(t, "readlink", "/proc/self/ns/"+kind)
		if a != b {
			t.Errorf("%s namespaces: %s and %s in one pod", kind, a, b)
		}
	}
	for _, kind := range []string{"pid", "mnt"} {
		a, b := one.Exec(t, "readlink", "/proc/self/ns/"+kind), two.Exec(t, "readlink", "/proc/self/ns/"+kind)
		if a == b {
			t.Errorf("two containers share the %s namespace %s", kind, a)
		}
	}
	one.Exec(t, "sh", "-c", "echo hello > /dev/shm/note")
	if got := two.Exec(t, "cat", "/dev/shm/note"); got != "hello" {
		t.Errorf("/dev/shm is not shared: %q", got)
	}
	if got := two.Exec(t, "stat", "-c", "%u:%g %a", "/dev/shm"); got != "0:0 1777" {
		t.Errorf("/dev/shm is %s inside, want 0:0 1777", got)
	}
}
