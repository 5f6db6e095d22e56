package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestRootOfAPodHasNoPowerOverAnother lets root of a pod, with every capability in its user namespace, act
// from the host's other namespaces: only ids stand between it and the other pod's process. Root of that
// process's own pod, which may do all of it, is the control.
func TestRootOfAPodHasNoPowerOverAnother(t *testing.T) {
	n := sharedNode(t)
	image := probeImage(t, n)
	host := probeOnHost(t)
	one := n.RunPod(t).Run(t, image, nodetest.Command("sleep", "7777"))
	two := n.RunPod(t).Run(t, image)
	target := one.PID(t)

	for _, c := range []struct{ act, own, other string }{
		{"signal", "", "EPERM"},
		{"seize", "", "EPERM"},
		{"vmread", "EFAULT", "EPERM"},
	} {
		if r := asRootOf(t, one, host, c.act, strconv.Itoa(target)); r.Errno != c.own {
			t.Errorf("%s by root of the process's own pod: %+v, want %q", c.act, r, c.own)
		}
		if r := asRootOf(t, two, host, c.act, strconv.Itoa(target)); r.Errno != c.other {
			t.Errorf("%s by root of another pod: %+v, want %s", c.act, r, c.other)
		}
	}
	for _, file := range []string{"environ", "maps", "root/etc/passwd", "cwd/etc/passwd"} {
		path := fmt.Sprintf("/proc/%d/%s", target, file)
		if out, err := enter(t, one, "cat", path).CombinedOutput(); err != nil {
			t.Errorf("root of the process's own pod cannot read %s: %v: %s", path, err, out)
		}
		if out, err := enter(t, two, "cat", path).CombinedOutput(); err == nil {
			t.Errorf("root of another pod reads %s: %s", path, out)
		}
	}
}

// TestPIDFDGivesNoPowerOverAnotherPod passes a pidfd of a pod's process into that pod and into another one.
// The kernel refuses a pidfd from outside of the caller's PID namespace with EINVAL, before it looks at ids.
func TestPIDFDGivesNoPowerOverAnotherPod(t *testing.T) {
	n := sharedNode(t)
	image := probeImage(t, n)
	host := probeOnHost(t)
	first, second := n.RunPod(t), n.RunPod(t)
	for _, c := range []struct {
		name string
		pod  *nodetest.Pod
		want string
	}{{"own", first, ""}, {"other", second, "EINVAL"}} {
		t.Run(c.name, func(t *testing.T) {
			dir := volume(t, n)
			receiver := c.pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.Capabilities("ALL"), nodetest.Unconfined,
				nodetest.Command(probePath, "signalpidfd", "/vol/pod.sock"))
			awaitFile(t, filepath.Join(dir, "pod.sock.ready"))
			target := receiver
			if c.pod != first {
				target = first.Run(t, image)
			}
			sendFromHost(t, 0, host, "sendpidfd", filepath.Join(dir, "pod.sock"), strconv.Itoa(target.PID(t)))
			if code := receiver.Wait(t); code != 0 {
				t.Fatalf("receiver exits with %d: %s", code, receiver.Log(t))
			}
			if r := parseResult(t, receiver.Log(t).Stdout()); r.Errno != c.want {
				t.Errorf("pidfd_send_signal gives %+v, want %q", r, c.want)
			}
		})
	}
}

// asRootOf runs the probe as root of a container's user namespace, in the host's other namespaces.
func asRootOf(t *testing.T, c *nodetest.Container, argv ...string) result {
	t.Helper()
	out, err := enter(t, c, argv...).Output()
	if err != nil {
		t.Fatalf("%q as root of a pod: %v", argv, err)
	}
	return parseResult(t, string(out))
}

func enter(t *testing.T, c *nodetest.Container, argv ...string) *exec.Cmd {
	t.Helper()
	user := fmt.Sprintf("--user=/proc/%d/ns/user", c.PID(t))
	return exec.CommandContext(t.Context(), "nsenter", append([]string{user, "--setuid=0", "--setgid=0", "--"}, argv...)...)
}
