package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// countsOn counts in memory, prints each number, and keeps the last in the root filesystem. Before that
// it removes and makes files there.
const countsOn = `echo kept > /made; rm /etc/group; i=0; while :; do i=$((i+1)); echo $i; echo $i > /last; sleep 0.1; done`

func checkpointTo(t *testing.T, n *nodetest.Node, c *nodetest.Container, timeout int64) (string, error) {
	t.Helper()
	location := filepath.Join(volume(t, n), "checkpoint.tar")
	_, err := n.Runtime.CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{
		ContainerId: c.ID, Location: location, Timeout: timeout,
	})
	return location, err
}

// archived unpacks an archive for checkpointctl's library and returns the names in it.
func archived(t *testing.T, path string) (dir string, names []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir = t.TempDir()
	for in := tar.NewReader(f); ; {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return dir, names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimSuffix(hdr.Name, "/"))
		target := filepath.Join(dir, hdr.Name)
		if hdr.Typeflag == tar.TypeDir {
			if err := os.Mkdir(target, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func awaitNumber(t *testing.T, c *nodetest.Container, atLeast int) {
	t.Helper()
	c.AwaitLog(t, fmt.Sprintf("a number of %d or more", atLeast), func(l nodetest.ContainerLog) bool {
		return len(l) > 0 && number(l[len(l)-1]) >= atLeast
	})
}

// TestCheckpointContainer holds that a checkpoint disturbs nothing, has what checkpointctl expects, and that a
// container made of it goes on counting, with the files that it had.
func TestCheckpointContainer(t *testing.T) {
	testkit.RequireCRIU(t)
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostUsers)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, c, 5)
	pid := c.PID(t)
	archive, err := checkpointTo(t, n, c, 60)
	if err != nil {
		t.Fatal(err)
	}
	before := lastNumber(t, c)
	awaitNumber(t, c, before+5)
	if c.PID(t) != pid || c.Status(t).State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container did not simply go on: pid %d, was %d", c.PID(t), pid)
	}
	wantGrowingFrom(t, c.Log(t), 1)
	wantCheckpoint(t, c, archive)
	c.Remove(t)

	fresh := n.RunPod(t, nodetest.HostUsers)
	restored := fresh.Run(t, archive)
	awaitNumber(t, restored, before+10)
	lines := restored.Log(t)
	if first := number(lines[0]); first < 5 || first > before+1 {
		t.Errorf("the restored container begins with %d, the checkpoint was between 5 and %d", first, before)
	}
	wantGrowingFrom(t, lines, number(lines[0]))
	if got := restored.Exec(t, "cat", "/made"); got != "kept" {
		t.Errorf("a file that the container made has %q", got)
	}
	if resp, err := restored.TryExec(t.Context(), "test", "-e", "/etc/group"); err != nil || resp.ExitCode == 0 {
		t.Errorf("a file that the container removed is there again: %v %v", resp, err)
	}
	restored.Stop(t, 0)
	if code := restored.Wait(t); code != 137 {
		t.Errorf("the restored container exits with %d, want 137", code)
	}
}

// wantGrowingFrom wants each line to be the next number.
func wantGrowingFrom(t *testing.T, l nodetest.ContainerLog, first int) {
	t.Helper()
	for i, line := range l {
		if number(line) != first+i {
			t.Fatalf("line %d of the log is %q, want %d", i, line.Text, first+i)
		}
	}
}

// wantCheckpoint reads an archive as checkpointctl does.
func wantCheckpoint(t *testing.T, c *nodetest.Container, archive string) {
	t.Helper()
	if info, err := os.Stat(archive); err != nil || info.Mode() != 0o600 {
		t.Errorf("the archive is %v %v, want mode 0600", info, err)
	}
	dir, names := archived(t, archive)
	for _, want := range []string{
		metadata.ConfigDumpFile, metadata.SpecDumpFile, metadata.StatusDumpFile, metadata.StatusFile, metadata.DumpLogFile,
		metadata.RootFsDiffTar, "stats-dump", "container.log", "checkpoint/inventory.img", "checkpoint/pstree.img", "checkpoint/pages-1.img",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("the archive has no %s; it has %q", want, names)
		}
	}
	config, _, err := metadata.ReadContainerCheckpointConfigDump(dir)
	if err != nil {
		t.Fatal(err)
	}
	if config.ID != c.ID || config.Name != c.Config.Metadata.Name || config.OCIRuntime != "runc" || config.RootfsImageRef != c.Status(t).ImageRef {
		t.Errorf("config.dump is %+v", config)
	}
	spec, _, err := metadata.ReadContainerCheckpointSpecDump(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Annotations["io.kubernetes.cri.container-name"]; got != config.Name {
		t.Errorf("spec.dump is of container %q", got)
	}
	if status, _, err := metadata.ReadContainerCheckpointStatusFile(dir); err != nil || status.StartedAt != c.Status(t).StartedAt {
		t.Errorf("status is %+v, %v", status, err)
	}
	if has := diffNames(t, filepath.Join(dir, metadata.RootFsDiffTar)); !slices.Contains(has, "made") || !slices.Contains(has, "etc/.wh.group") {
		t.Errorf("the diff of the root filesystem has %q, want made and etc/.wh.group", has)
	}
}

func diffNames(t *testing.T, path string) []string {
	t.Helper()
	var names []string
	for _, hdr := range diffHeaders(t, path) {
		names = append(names, strings.Trim(hdr.Name, "/"))
	}
	return names
}

func diffHeaders(t *testing.T, path string) []*tar.Header {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []*tar.Header
	for in := tar.NewReader(f); ; {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, hdr)
	}
}

// TestCheckpointWithoutCRIU runs containerd with a PATH that has everything but criu.
func TestCheckpointWithoutCRIU(t *testing.T) {
	t.Parallel()
	tools := nodetest.Tools(t)
	without := t.TempDir()
	for _, name := range []string{"runc", "containerd-shim-runc-v2"} {
		if err := os.Symlink(tools.Path(name), filepath.Join(without, name)); err != nil {
			t.Fatal(err)
		}
	}
	n := ownNode(t, labnode.Options{Containerd: labnode.ContainerdOptions{SearchPath: without}})
	c := n.RunPod(t, nodetest.HostUsers).Run(t, n.Image(t, labimage.Demo), nodetest.Shell(countsOn))
	awaitNumber(t, c, 3)
	location, err := checkpointTo(t, n, c, 60)
	wantError(t, err, codes.FailedPrecondition, "the program criu", "PATH of containerd", c.ID)
	wantEmpty(t, filepath.Dir(location))
	awaitNumber(t, c, lastNumber(t, c)+3)
}
