package e2e

import (
	"encoding/json"
	"path"
	"regexp"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/metadata"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestContainerdHasWhatCadvisorReads follows the cAdvisor of a kubelet with default gates: from a process' cgroup over the
// id in its name to containerd's record and task of the namespace k8s.io.
func TestContainerdHasWhatCadvisorReads(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image)
		files := cgroupFilesOf(t, c.PID(t))
		dir := files.dirs[anyController(files)]
		id := regexp.MustCompile(`[a-z0-9]{64}`).FindString(path.Base(dir))
		if id != c.ID {
			t.Fatalf("the cgroup %s names %q, want %s", dir, id, c.ID)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", labnode.Namespace)
		resp, err := containersapi.NewContainersClient(n.Engine).Get(ctx, &containersapi.GetContainerRequest{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		rec := resp.Container
		var spec specs.Spec
		if err := json.Unmarshal(rec.Spec.GetValue(), &spec); err != nil || spec.Process == nil || !strings.HasSuffix(spec.Linux.CgroupsPath, id) {
			t.Errorf("the specification cannot be read: %v, %v", spec.Process, err)
		}
		md := pod.Request.Config.Metadata
		for key, want := range map[string]string{
			"io.cri-containerd.kind":       "container",
			"io.kubernetes.pod.name":       md.Name,
			"io.kubernetes.pod.namespace":  md.Namespace,
			"io.kubernetes.pod.uid":        md.Uid,
			"io.kubernetes.container.name": c.Config.Metadata.Name,
		} {
			if rec.Labels[key] != want {
				t.Errorf("label %s is %q, want %q", key, rec.Labels[key], want)
			}
		}
		if rec.Image != image || rec.CreatedAt.AsTime().Unix() <= 0 {
			t.Errorf("image %q, made at %s", rec.Image, rec.CreatedAt.AsTime())
		}
		task, err := tasksapi.NewTasksClient(n.Engine).Get(ctx, &tasksapi.GetRequest{ContainerID: id})
		if err != nil || int(task.GetProcess().GetPid()) != c.PID(t) || task.GetProcess().GetPid() == 0 {
			t.Errorf("the task is %v, %v", task, err)
		}
	})
}
