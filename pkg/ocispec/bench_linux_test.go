package ocispec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// These tests hand built specifications to a real runc, so that a golden file cannot agree
// with itself alone.

const testHostID = 2113798144

// bench is what a container under runc needs on disk.
type bench struct {
	t      *testing.T
	runc   string
	dir    string // traversable by any uid
	rootfs string
	owner  int // host uid and gid of the pod's root
}

func newBench(t *testing.T, owner int) *bench {
	t.Helper()
	testkit.RequireRoot(t)
	runc := testkit.RequireBin(t, "runc")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v (Debian package busybox-static)", err)
	}
	b := &bench{t: t, runc: runc, dir: t.TempDir(), owner: owner}
	// testing makes the parent 0700, and a pod's root is nobody there.
	if err := os.Chmod(filepath.Dir(b.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	b.rootfs = filepath.Join(b.dir, "rootfs")
	b.makeRootfs(busybox)
	return b
}

func (b *bench) makeRootfs(busybox string) {
	b.t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("rootfs/bin/busybox", string(program), 0o755)
	b.write("rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n", 0o644)
	b.write("rootfs/etc/group", "root:x:0:\nalice:x:1000:\nextra:x:50000:alice\n", 0o644)
	if err := os.Symlink("busybox", filepath.Join(b.rootfs, "bin/sh")); err != nil {
		b.t.Fatal(err)
	}
	b.chown(b.rootfs)
}

// write makes a file below the bench's directory, owned by the host's root.
func (b *bench) write(name, text string, mode os.FileMode) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *bench) chown(root string) {
	b.t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, b.owner, b.owner)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// container is one that runs script in the bench's rootfs, in namespaces of its own pod.
func (b *bench) container(script string) Container {
	pid := b.pod()
	ns := func(kind string) Namespace { return Namespace{Path: fmt.Sprintf("/proc/%d/ns/%s", pid, kind)} }
	c := Container{
		ID:       fmt.Sprintf("ocispec-test-%d-%d", os.Getpid(), time.Now().UnixNano()),
		Identity: Identity{SandboxID: "test"},
		RootPath: b.rootfs,
		Process: Process{
			Image:   imagespec.ImageConfig{Env: []string{"PATH=/bin"}},
			Command: []string{"/bin/sh", "-ec", applets + script},
		},
		Namespaces: Namespaces{Network: ns("net"), IPC: ns("ipc"), UTS: ns("uts")},
		Host:       Host{Seccomp: true, RecursiveReadOnly: true, CgroupV2: unifiedCgroups()},
	}
	if b.owner != 0 {
		c.Mapping = &IDMapping{HostID: uint32(b.owner), Length: 65536}
		c.Namespaces.User = fmt.Sprintf("/proc/%d/ns/user", pid)
	}
	c.CgroupsPath = "/" + c.ID
	return c
}

func unifiedCgroups() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// applets lets a script call busybox's programs by name.
const applets = `for a in id cat stat hostname grep ls touch mkdir mount readlink sleep; do alias $a="busybox $a"; done
`

// pod starts a process that holds the namespaces of a pod until the test ends.
func (b *bench) pod() int {
	b.t.Helper()
	cmd := exec.Command("busybox", "cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID,
	}
	if b.owner != 0 {
		ids := []syscall.SysProcIDMap{{HostID: b.owner, Size: 65536}}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// run runs the container to its end and returns what it wrote.
func (b *bench) run(c Container) string {
	b.t.Helper()
	out, err := b.tryRun(c)
	if err != nil {
		b.t.Fatalf("%v:\n%s", err, out)
	}
	return out
}

func (b *bench) tryRun(c Container) (string, error) {
	b.t.Helper()
	return b.do("run", "--bundle", b.bundle(c), c.ID)
}

func (b *bench) bundle(c Container) string {
	b.t.Helper()
	spec, err := Build(c)
	if err != nil {
		b.t.Fatal(err)
	}
	config, err := json.Marshal(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return filepath.Dir(b.write("bundle-"+c.ID+"/config.json", string(config), 0o600))
}

func (b *bench) do(args ...string) (string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.runc, append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var lines []string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, "config.json has both a userns path") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ""), err
}

func (b *bench) expect(c Container, want string) {
	b.t.Helper()
	if got := strings.TrimSpace(b.run(c)); got != want {
		b.t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func (b *bench) detached(id, bundle string) (string, error) {
	b.t.Helper()
	log := b.write("runc.log", "", 0o600)
	f, err := os.OpenFile(log, os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(b.runc, "--root", filepath.Join(b.dir, "state"), "run", "--detach", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	text, _ := os.ReadFile(log)
	return string(text), err
}
