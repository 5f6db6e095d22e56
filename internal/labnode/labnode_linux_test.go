package labnode_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestWorldIsApart(t *testing.T) {
	testkit.RequireRoot(t)
	world := newWorld(t)

	dir := t.TempDir()
	if err := world.Do(func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }); err != nil {
		t.Fatal(err)
	}
	if mountedHere(t, dir) {
		t.Errorf("a mount made in the world is seen outside")
	}
	inside, err := os.ReadFile(filepath.Join(world.ProcDir(), "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(inside), " "+dir+" ") {
		t.Errorf("ProcDir's mountinfo lacks the mount")
	}

	listener, err := world.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if conn, err := net.DialTimeout("tcp", listener.Addr().String(), time.Second); err == nil {
		conn.Close()
		t.Errorf("the world's loopback is reachable from outside")
	}
	conn, err := world.Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("dial inside the world: %v", err)
	}
	conn.Close()
}

func TestWorldStartsProgramsInside(t *testing.T) {
	testkit.RequireRoot(t)
	world := newWorld(t)
	out, err := world.Output(exec.Command("readlink", "/proc/self/ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Readlink(filepath.Join(world.ProcDir(), "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != want || got == own {
		t.Errorf("program runs in %s, want the world's %s, not the test's %s", got, want, own)
	}
}

func TestContainerdRunsAndLeavesNothing(t *testing.T) {
	for _, place := range []string{"own namespaces", "world"} {
		t.Run(place, func(t *testing.T) {
			tools := nodetest.Tools(t)
			dir, err := os.MkdirTemp("/tmp", "uslt-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := labnode.RemoveDir(dir); err != nil {
					t.Error(err)
				}
			})
			t.Cleanup(func() {
				if err := labnode.RemoveCgroups(filepath.Base(dir)); err != nil {
					t.Error(err)
				}
			})
			var world *labnode.World
			if place == "world" {
				world = newWorld(t)
			}
			registry, certs := pushDemo(t, world)
			c, err := labnode.StartContainerd(t.Context(), labnode.ContainerdOptions{Tools: tools, Dir: dir, World: world})
			if err != nil {
				t.Fatal(err)
			}
			ctr := func(args ...string) string {
				t.Helper()
				cmd := exec.Command(tools.Path("ctr"), append([]string{"-a", c.Address, "-n", labnode.Namespace}, args...)...)
				out, err := world.Output(cmd)
				if err != nil {
					t.Error(err)
				}
				return strings.TrimSpace(string(out))
			}
			// runc's state and cgroup have the container's id alone, so another run must not have the same.
			cgroup := "/" + filepath.Base(dir)
			one, two := filepath.Base(dir)+"-1", filepath.Base(dir)+"-2"
			ref := registry.Ref(labimage.Demo)
			ctr("images", "pull", "--hosts-dir", certs, ref)
			if got := ctr("run", "--rm", "--cgroup", cgroup+"/1", ref, one, "cat", "/data/added"); got != "by the last layer" {
				t.Errorf("container printed %q", got)
			}
			ctr("run", "-d", "--cgroup", cgroup+"/2", ref, two, "sleep", "1000")

			if err := c.Kill9(); err != nil {
				t.Fatal(err)
			}
			if c.Running() {
				t.Error("runs after Kill9")
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := ctr("tasks", "ls", "-q"); got != two {
				t.Errorf("after a restart containerd has tasks %q, want %s", got, two)
			}
			ctr("tasks", "rm", "-f", two)
			closeContainerd(t, c)
			assertNoProcess(t, dir)
		})
	}
}

func newWorld(t *testing.T) *labnode.World {
	t.Helper()
	world, err := labnode.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	return world
}

func pushDemo(t *testing.T, world *labnode.World) (*labimage.Registry, string) {
	t.Helper()
	listener, err := world.Listen()
	if err != nil {
		t.Fatal(err)
	}
	registry := nodetest.ServeDemo(t, listener, labimage.Demo)
	certs := t.TempDir()
	if err := labimage.WriteHosts(certs, registry.Addr(), registry.Addr()); err != nil {
		t.Fatal(err)
	}
	return registry, certs
}

func closeContainerd(t *testing.T, c *labnode.Containerd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

func assertNoProcess(t *testing.T, mark string) {
	t.Helper()
	procs, err := leaks.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range leaks.Belonging(procs, mark) {
		t.Errorf("left behind: pid %d: %s", proc.PID, proc.Cmdline)
	}
}

func mountedHere(t *testing.T, dir string) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), " "+dir+" ")
}
