package e2ekubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// cgroupDir is the directory of a process' cgroup in the hierarchy of one controller.
func cgroupDir(t testing.TB, pid int, controller string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if fields[1] == "" {
			unified = "/sys/fs/cgroup" + fields[2]
		}
		for name := range strings.SplitSeq(fields[1], ",") {
			if name == controller {
				return "/sys/fs/cgroup/" + controller + fields[2]
			}
		}
	}
	return unified
}

// cgroupValue reads a cgroup's file: the first of the names, of the two versions, that is there.
func cgroupValue(t testing.TB, dir string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("%s has none of %v", dir, names)
	return ""
}

// TestResourceLimits reads what kubelet asked for where the kernel has it: the container's cgroup, below the pod's,
// below that of its class of service.
func TestResourceLimits(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		for class, resources := range map[corev1.PodQOSClass]string{
			corev1.PodQOSGuaranteed: "{limits: {cpu: 50m, memory: 32Mi}}",
			corev1.PodQOSBurstable:  "{requests: {cpu: 20m, memory: 16Mi}, limits: {cpu: 50m, memory: 32Mi}}",
			corev1.PodQOSBestEffort: "{}",
		} {
			t.Run(string(class), func(t *testing.T) {
				t.Parallel()
				p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], resources: `+resources+`}
`)
				now := p.ready(t)
				if now.Status.QOSClass != class {
					t.Errorf("the pod's class is %s", now.Status.QOSClass)
				}
				c := p.container(t, "main")
				p.wantCgroups(t, now, c)
			})
		}
	})
}

func (p *pod) wantCgroups(t *testing.T, now *corev1.Pod, c *nodetest.Container) {
	t.Helper()
	class := map[corev1.PodQOSClass]string{
		corev1.PodQOSGuaranteed: "", corev1.PodQOSBurstable: "/burstable", corev1.PodQOSBestEffort: "/besteffort",
	}[now.Status.QOSClass]
	memory, cpu := cgroupDir(t, c.PID(t), "memory"), cgroupDir(t, c.PID(t), "cpu")
	for _, dir := range []string{memory, cpu} {
		want := fmt.Sprintf("%s/kubepods%s/pod%s/%s", p.node.Cgroup(), class, now.UID, c.ID)
		if !strings.HasSuffix(dir, want) {
			t.Errorf("the cgroup is %s, want one that ends with %s", dir, want)
		}
	}
	wantShares(t, now.Status.QOSClass, cpu)
	wantOOMScore(t, now.Status.QOSClass, c.PID(t))
	if now.Status.QOSClass == corev1.PodQOSBestEffort {
		return
	}
	for _, dir := range []string{memory, filepath.Dir(memory)} { // the container's and the pod's
		if got := cgroupValue(t, dir, "memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(32<<20) {
			t.Errorf("the memory limit of %s is %s", dir, got)
		}
	}
	for _, dir := range []string{cpu, filepath.Dir(cpu)} {
		got := cgroupValue(t, dir, "cpu.cfs_quota_us", "cpu.max")
		if quota, _, _ := strings.Cut(got, " "); quota != "5000" {
			t.Errorf("the quota of %s is %s", dir, got)
		}
	}
}

// wantShares holds the container's share of the processor against its request: 50m, 20m and nothing. The weight of version 2 is
// runc's to compute; what it may not be is the kernel's default.
func wantShares(t *testing.T, class corev1.PodQOSClass, cpu string) {
	t.Helper()
	want := map[corev1.PodQOSClass]string{corev1.PodQOSGuaranteed: "51", corev1.PodQOSBurstable: "20", corev1.PodQOSBestEffort: "2"}[class]
	if _, err := os.Stat(filepath.Join(cpu, "cpu.weight")); err == nil {
		if weight := number(t, cgroupValue(t, cpu, "cpu.weight")); weight >= 100 {
			t.Errorf("the cpu weight is %g", weight)
		}
		return
	}
	if shares := cgroupValue(t, cpu, "cpu.shares"); shares != want {
		t.Errorf("cpu shares are %s, want %s", shares, want)
	}
}

// wantOOMScore holds what kubelet gives a container of each class. Without CAP_SYS_RESOURCE nobody gets less than userns-shim itself has.
func wantOOMScore(t *testing.T, class corev1.PodQOSClass, pid int) {
	t.Helper()
	score := func(process string) float64 {
		text, err := os.ReadFile("/proc/" + process + "/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		return number(t, string(text))
	}
	got, own := score(strconv.Itoa(pid)), score("self")
	want := map[corev1.PodQOSClass]bool{
		corev1.PodQOSGuaranteed: got == -997 || got == own,
		corev1.PodQOSBurstable:  got > 2 && got < 1000 && got > own,
		corev1.PodQOSBestEffort: got == 1000,
	}
	if !want[class] {
		t.Errorf("oom_score_adj is %g, the test's own %g", got, own)
	}
}

// TestOOMKilled has a container ask for more memory than it may have, and its neighbour not.
func TestOOMKilled(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
restartPolicy: Never
containers:
- {name: main, image: IMAGE, command: [sh, -c, 'exec dd if=/dev/zero of=/dev/null bs=100M count=1'], resources: {limits: {memory: 32Mi}}}
- {name: within, image: IMAGE, command: [sh, -c, 'dd if=/dev/zero of=/dev/null bs=4M count=1'], resources: {limits: {memory: 32Mi}}}
`)
		now := p.ended(t, corev1.PodFailed)
		if got := ending(t, now, "main"); got.Reason != "OOMKilled" || got.ExitCode != 137 {
			t.Errorf("the container ended as %+v", got)
		}
		if got := ending(t, now, "within"); got.Reason != "Completed" || got.ExitCode != 0 {
			t.Errorf("the container that kept its limit ended as %+v", got)
		}
	})
}

// TestOOMKilledContainerIsRestarted holds that kubelet goes on after such an end as after any other.
func TestOOMKilledContainerIsRestarted(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sh, -c, '[ -e /shared/x ] && sleep infinity; touch /shared/x; exec dd if=/dev/zero of=/dev/null bs=100M count=1'], resources: {limits: {memory: 32Mi}}, volumeMounts: [{name: shared, mountPath: /shared}]}
volumes: [{name: shared, emptyDir: {}}]
`)
		p.awaitRestart(t, "main")
		now := p.ready(t)
		if last := status(now, "main").LastTerminationState.Terminated; last == nil || last.Reason != "OOMKilled" || last.ExitCode != 137 {
			t.Errorf("the first one ended as %+v", last)
		}
	})
}
