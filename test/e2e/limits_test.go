package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestProcessLimitOfOneUserCountsApartInTwoPods fills RLIMIT_NPROC=5 of user 1000 in each of two pods.
func TestProcessLimitOfOneUserCountsApartInTwoPods(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	// The shell itself is the first process.
	script := func(children int) string {
		return fmt.Sprintf("ulimit -u 5; for i in $(seq 1 %d); do sleep 300 & done; echo started; wait", children)
	}
	for i := range 2 {
		c := n.RunPod(t).Run(t, image, nodetest.Shell("exec 2>&1; "+script(4)), nodetest.User(1000, 1000))
		log := c.AwaitLog(t, "come to a result", func(l nodetest.ContainerLog) bool { return len(l) > 0 })
		if got := strings.TrimSpace(log.Stdout()); got != "started" {
			t.Errorf("pod %d with four children and a limit of five: %q, want started", i, got)
		}
	}
	c := n.RunPod(t).Run(t, image, nodetest.Shell("exec 2>&1; "+script(6)), nodetest.User(1000, 1000))
	log := c.AwaitLog(t, "come to a result", func(l nodetest.ContainerLog) bool { return len(l) > 0 })
	if !strings.Contains(log.Stdout(), "fork") {
		t.Errorf("six children under a limit of five: %q, want an error of fork", log)
	}
}

// TestInotifyInstancesCountApart lets three pods take three quarters of the limit each. Charged to one id,
// the second would not get its share.
func TestInotifyInstancesCountApart(t *testing.T) {
	n := sharedNode(t)
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	want := limit * 3 / 4
	image := probeImage(t, n)
	for i := range 3 {
		c := n.RunPod(t).Run(t, image, nodetest.Command(probePath, "inotify", strconv.Itoa(want)))
		log := c.AwaitLog(t, "come to a result", func(l nodetest.ContainerLog) bool { return len(l) > 0 })
		if got := strings.TrimSpace(log.Stderr()); got != fmt.Sprintf("holding %d", want) {
			t.Errorf("pod %d asks for %d of %d instances: %s", i, want, limit, log)
		}
		if state := c.Status(t).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("pod %d is %s, want it to hold its instances", i, state)
		}
	}
}
