package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// ticking appends to a file that the containers of a pod share, so that who runs can be seen from outside.
func ticking(name string) string {
	return `echo of-` + name + ` > /dev/shm/` + name + `; i=0; while :; do i=$((i+1)); echo $i; read up idle < /proc/uptime; echo $up >> /vol/` + name + `; sleep 0.02; done`
}

func checkpointPod(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, dir string, containers ...*nodetest.Container) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := &runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir}
	for _, c := range containers {
		req.ContainerIds = append(req.ContainerIds, c.ID)
	}
	_, err := n.Runtime.CheckpointPod(ctx, req)
	return err
}

func restorePod(t *testing.T, n *nodetest.Node, req *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	t.Helper()
	if err := os.MkdirAll(req.Config.LogDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return n.Runtime.RestorePod(ctx, req)
}

// TestCheckpointPodAndRestorePod takes a pod of two containers through both.
func TestCheckpointPodAndRestorePod(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	vol := volume(t, n)
	pod := n.RunPod(t, nodetest.HostUsers)
	a := pod.Run(t, image, nodetest.Mount(vol, "/vol"), nodetest.Shell(ticking("a")))
	b := pod.Run(t, image, nodetest.Mount(vol, "/vol"), nodetest.Shell(ticking("b")))
	idle := pod.Run(t, image)
	awaitNumber(t, a, 5)
	awaitNumber(t, b, 5)
	dir := volume(t, n)
	began := uptime(t)
	if err := checkpointPod(t, n, pod, dir, a, b); err != nil {
		t.Fatal(err)
	}
	ended := uptime(t)
	before := []int{lastNumber(t, a), lastNumber(t, b)}
	awaitNumber(t, a, before[0]+5)
	awaitNumber(t, b, before[1]+5)
	idle.Exec(t, "true")
	wantOnePause(t, vol, began, ended)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the caller's directory is %v, %v", info, err)
	}
	pod.Remove(t)

	req := n.PodRequest(t, nodetest.HostUsers)
	req.Config.Metadata.Attempt++
	configs := []*runtimeapi.ContainerConfig{b.Config, a.Config}
	was := tree(t, dir)
	resp, err := restorePod(t, n, &runtimeapi.RestorePodRequest{CheckpointPath: dir, Config: req.Config, ContainerConfigs: configs})
	if err != nil {
		t.Fatal(err)
	}
	fresh := n.Adopt(t, resp.PodSandboxId, req)
	if now := tree(t, dir); now != was {
		t.Errorf("the checkpoint was changed from\n%s\nto\n%s", was, now)
	}
	if len(resp.RestoredContainers) != 2 {
		t.Fatalf("restored are %v, want two", resp.RestoredContainers)
	}
	for i, r := range resp.RestoredContainers {
		if r.Name != configs[i].Metadata.Name {
			t.Errorf("container %d is %s, want %s", i, r.Name, configs[i].Metadata.Name)
		}
		c := fresh.Adopt(r.ContainerId, configs[i])
		if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("a restored container is %s before its start", st.State)
		}
		if _, err := os.Stat(c.LogPath()); err == nil && len(c.Log(t)) > 0 {
			t.Errorf("a restored container ran before its start")
		}
	}
	for i, name := range []string{"b", "a"} {
		c := fresh.Adopt(resp.RestoredContainers[i].ContainerId, configs[i])
		c.Start(t)
		awaitNumber(t, c, before[1-i]+5)
		first := number(c.Log(t)[0])
		if first < 5 || first > before[1-i]+1 {
			t.Errorf("container %s goes on with %d, the checkpoint was between 5 and %d", name, first, before[1-i])
		}
		wantGrowingFrom(t, c.Log(t), first)
		if got := c.Exec(t, "cat", "/dev/shm/"+name); got != "of-"+name {
			t.Errorf("the pod's /dev/shm/%s has %q", name, got)
		}
	}
}

// uptime is the machine's, in seconds, as the writers have it.
func uptime(t *testing.T) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(text), " ")
	at, err := strconv.ParseFloat(up, 64)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// pauses are the times in which a writer wrote nothing between two moments, of a tenth of a second and longer: its own pause, and
// those that a busy machine makes.
func pauses(t *testing.T, file string, began, ended float64) (all [][2]float64) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := began
	for _, line := range strings.Fields(string(data)) {
		at, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Fatal(err)
		}
		if from, to := max(last, began), min(at, ended); to-from >= 0.1 {
			all = append(all, [2]float64{from, to})
		}
		last = at
	}
	return all
}

// wantOnePause wants a tenth of a second of the checkpoint in which neither writer wrote: they were frozen together.
func wantOnePause(t *testing.T, vol string, began, ended float64) {
	t.Helper()
	a, b := pauses(t, filepath.Join(vol, "a"), began, ended), pauses(t, filepath.Join(vol, "b"), began, ended)
	for _, one := range a {
		for _, other := range b {
			if min(one[1], other[1])-max(one[0], other[0]) >= 0.1 {
				return
			}
		}
	}
	t.Errorf("the pauses of the writers are %v and %v between %v and %v: no two of them overlap", a, b, began, ended)
}

// tree lists a directory with sizes and times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Name()+" "+strconv.FormatInt(info.Size(), 10)+" "+info.ModTime().String()+" "+info.Mode().String())
	}
	return strings.Join(out, "\n")
}

// TestRestorePodHoldsTheCheckpoint gives RestorePod what the checkpoint was not made of. Nothing is left of
// the pod each time.
func TestRestorePodHoldsTheCheckpoint(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t, nodetest.HostUsers)
	c := pod.Run(t, image, nodetest.Shell(countsOn))
	awaitNumber(t, c, 2)
	dir := volume(t, n)
	if err := checkpointPod(t, n, pod, dir, c); err != nil {
		t.Fatal(err)
	}
	pod.Remove(t)
	empty := volume(t, n)
	for name, change := range map[string]struct {
		with func(*runtimeapi.RestorePodRequest, *runtimeapi.ContainerConfig)
		code codes.Code
		says string
	}{
		"no containers": {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) { r.ContainerConfigs = nil }, codes.InvalidArgument, "empty"},
		"another name":  {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) { c.Metadata.Name = "other" }, codes.InvalidArgument, "other"},
		"a name twice": {func(r *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) {
			r.ContainerConfigs = append(r.ContainerConfigs, c)
		}, codes.InvalidArgument, "twice"},
		"an option": {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) {
			r.Options = map[string]string{"x": "y"}
		}, codes.InvalidArgument, "x"},
		"no checkpoint":   {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) { r.CheckpointPath = empty }, codes.InvalidArgument, "pod.options"},
		"a relative path": {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) { r.CheckpointPath = "tmp" }, codes.InvalidArgument, "tmp"},
		"unknown handler": {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) { r.RuntimeHandler = "none" }, codes.InvalidArgument, "none"},
		"another command": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) { c.Args = []string{"-c", "true"} }, codes.InvalidArgument, "command"},
		"another environment": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "NEW", Value: []byte("1")}}
		}, codes.InvalidArgument, "NEW=1"},
		"another directory": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) { c.WorkingDir = "/tmp" }, codes.InvalidArgument, "/tmp"},
		"another user": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 7}
		}, codes.InvalidArgument, "user is 7"},
		"another image": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) {
			c.Image.Image = n.Image(t, labimage.Owners)
		}, codes.InvalidArgument, "image"},
		"another mount": {func(_ *runtimeapi.RestorePodRequest, c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: empty, ContainerPath: "/new"}}
		}, codes.InvalidArgument, "/new"},
		"a user namespace": {func(r *runtimeapi.RestorePodRequest, _ *runtimeapi.ContainerConfig) {
			r.Config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		}, codes.FailedPrecondition, "user namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			config := pod.ContainerConfig(image, nodetest.Shell(countsOn))
			config.Metadata = &runtimeapi.ContainerMetadata{Name: c.Config.Metadata.Name}
			req := &runtimeapi.RestorePodRequest{
				CheckpointPath: dir, Config: n.PodRequest(t, nodetest.HostUsers).Config, ContainerConfigs: []*runtimeapi.ContainerConfig{config},
			}
			change.with(req, config)
			resp, err := restorePod(t, n, req)
			if err == nil {
				n.Adopt(t, resp.PodSandboxId, &runtimeapi.RunPodSandboxRequest{Config: req.Config})
			}
			wantError(t, err, change.code, change.says)
			if list, err := n.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}); err != nil || len(list.Items) > 0 {
				t.Errorf("a sandbox is left: %v %v", list, err)
			}
			if err := os.RemoveAll(req.Config.LogDirectory); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := n.Runtime.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: dir, Config: pod.Request.Config, ContainerConfigs: []*runtimeapi.ContainerConfig{c.Config}})
	wantError(t, err, codes.InvalidArgument, "deadline")
}

// TestCheckpointRefuses holds what CRI says of the requests.
func TestCheckpointRefuses(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod, other := n.RunPod(t, nodetest.HostUsers), n.RunPod(t, nodetest.HostUsers)
	running, created, foreign := pod.Run(t, image), pod.Create(t, image), other.Run(t, image)
	dir, full := volume(t, n), volume(t, n)
	write(t, filepath.Join(full, "file"), "", 0, 0)
	good := filepath.Join(dir, "c.tar")
	for name, c := range map[string]struct {
		req  *runtimeapi.CheckpointContainerRequest
		code codes.Code
	}{
		"relative location":                  {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: "c.tar"}, codes.InvalidArgument},
		"no location":                        {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID}, codes.InvalidArgument},
		"location with ..":                   {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: dir + "/../c.tar"}, codes.InvalidArgument},
		"location with NUL":                  {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: dir + "/c\x00"}, codes.InvalidArgument},
		"no such directory":                  {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: dir + "/none/c.tar"}, codes.InvalidArgument},
		"a directory":                        {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: dir}, codes.InvalidArgument},
		"negative timeout":                   {&runtimeapi.CheckpointContainerRequest{ContainerId: running.ID, Location: good, Timeout: -1}, codes.InvalidArgument},
		"unknown container":                  {&runtimeapi.CheckpointContainerRequest{ContainerId: "none", Location: good}, codes.NotFound},
		"a container's prefix that is empty": {&runtimeapi.CheckpointContainerRequest{Location: good}, codes.InvalidArgument},
		"created, not run":                   {&runtimeapi.CheckpointContainerRequest{ContainerId: created.ID, Location: good}, codes.FailedPrecondition},
	} {
		_, err := n.Runtime.CheckpointContainer(t.Context(), c.req)
		t.Run(name, func(t *testing.T) { wantError(t, err, c.code) })
	}
	ids := func(list ...string) []string { return list }
	for name, c := range map[string]struct {
		req  *runtimeapi.CheckpointPodRequest
		code codes.Code
		says string
	}{
		"no containers":       {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir}, codes.InvalidArgument, "container_ids"},
		"one twice":           {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(running.ID, running.ID)}, codes.InvalidArgument, "twice"},
		"one by a prefix":     {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(running.ID, running.ID[:20])}, codes.InvalidArgument, running.ID},
		"another pod's":       {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(foreign.ID)}, codes.InvalidArgument, foreign.ID},
		"one that is not run": {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(running.ID, created.ID)}, codes.FailedPrecondition, created.ID},
		"unknown container":   {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids("none")}, codes.NotFound, "none"},
		"unknown pod":         {&runtimeapi.CheckpointPodRequest{PodSandboxId: "none", OutputPath: dir, ContainerIds: ids(running.ID)}, codes.NotFound, "none"},
		"full directory":      {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: full, ContainerIds: ids(running.ID)}, codes.InvalidArgument, "not empty"},
		"no directory":        {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir + "/none", ContainerIds: ids(running.ID)}, codes.InvalidArgument, "exists"},
		"a file":              {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: full + "/file", ContainerIds: ids(running.ID)}, codes.InvalidArgument, "directory"},
		"relative path":       {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: "tmp", ContainerIds: ids(running.ID)}, codes.InvalidArgument, "absolute"},
		"an option":           {&runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(running.ID), Options: map[string]string{"leave": "true"}}, codes.InvalidArgument, "leave"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := n.Runtime.CheckpointPod(ctx, c.req)
		cancel()
		t.Run(name, func(t *testing.T) { wantError(t, err, c.code, c.says) })
	}
	_, err := n.Runtime.CheckpointPod(t.Context(), &runtimeapi.CheckpointPodRequest{PodSandboxId: pod.ID, OutputPath: dir, ContainerIds: ids(running.ID)})
	wantError(t, err, codes.InvalidArgument, "deadline")
	wantEmpty(t, dir)
	running.Exec(t, "true")
}
