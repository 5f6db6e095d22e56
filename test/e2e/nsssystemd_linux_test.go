package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// systemdHost runs programs of a host with nss-systemd in a node's world: those of hack/tools/userdb.sh.
type systemdHost struct {
	n        *nodetest.Node
	programs string
	nsswitch string
}

func newSystemdHost(t *testing.T, n *nodetest.Node) systemdHost {
	t.Helper()
	h := systemdHost{n: n, programs: nodetest.Tools(t).Path("userdb"), nsswitch: filepath.Join(t.TempDir(), "nsswitch.conf")}
	if _, err := os.Stat(h.programs); err != nil {
		t.Fatalf("%v: `make bin/userdb` fetches it", err)
	}
	if err := os.WriteFile(h.nsswitch, []byte("passwd: files systemd\ngroup: files systemd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// try runs a program that sees its own nsswitch.conf.
func (h systemdHost) try(t *testing.T, argv ...string) (string, error) {
	t.Helper()
	const script = `mount --bind "$1" /etc/nsswitch.conf; shift; exec "$@"`
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-euc", script, "sh", h.nsswitch, h.programs}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := h.n.World.Output(cmd)
	return strings.TrimSpace(string(out)), err
}

func (h systemdHost) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := h.try(t, argv...)
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return out
}

// TestSystemdProgramsShowPods: what an operator types shows whose an id is.
func TestSystemdProgramsShowPods(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	h := newSystemdHost(t, n)
	pod := n.RunPod(t, named("web-7d4b9c6f5-x2k8p"))
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.User(1000, 1000))
	id := pod.Range(t) + 1000
	name, number := idName("-web-7d4b9c6f5", pod.Range(t), 1000), strconv.FormatUint(uint64(id), 10)
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "", int(id), int(id))

	for _, check := range []struct{ argv, want string }{
		{"ps -o user:32= -o group:32= -p " + strconv.Itoa(c.PID(t)), name + " " + name},
		{"getent passwd " + number, name + ":x:" + number + ":65534:ID 1000 of pod e2e/web-7d4b9c6f5-x2k8p:/:/usr/sbin/nologin"},
		{"getent passwd " + name, name + ":x:" + number + ":65534:ID 1000 of pod e2e/web-7d4b9c6f5-x2k8p:/:/usr/sbin/nologin"},
		{"getent group " + number, name + ":x:" + number + ":"},
		{"getent group " + name, name + ":x:" + number + ":"},
		{"userdbctl --no-legend --output=classic user " + number, name + ":x:" + number + ":65534:ID 1000 of pod e2e/web-7d4b9c6f5-x2k8p:/:/usr/sbin/nologin"},
		{"userdbctl --no-legend --output=classic group " + name, name + ":x:" + number + ":"},
	} {
		if got := fields(h.run(t, strings.Fields(check.argv)...)); got != check.want {
			t.Errorf("%s prints %q, want %q", check.argv, got, check.want)
		}
	}
	if got := h.run(t, "ls", "-l", file); !strings.Contains(got, " "+name+" "+name+" ") {
		t.Errorf("ls prints %q, want %s", got, name)
	}
	var user map[string]any
	if err := json.Unmarshal([]byte(h.run(t, "userdbctl", "--json=short", "user", name)), &user); err != nil || user["disposition"] != "container" || user["locked"] != true {
		t.Errorf("userdbctl prints %v, %v", user, err)
	}
	if got := h.run(t, "userdbctl", "services"); !strings.Contains(got, "io.userns-shim.IDPool") {
		t.Errorf("userdbctl services prints %q", got)
	}
	h.wantOthersUntouched(t)
}

// wantOthersUntouched holds that the users and lists of the host are as without the pool.
func (h systemdHost) wantOthersUntouched(t *testing.T) {
	t.Helper()
	if got := h.run(t, "userdbctl", "--no-legend", "--output=classic", "user"); !strings.Contains(got, "root:x:0:0:") || strings.Contains(got, "userns") {
		t.Errorf("the list of users is %q", got)
	}
	for _, argv := range [][]string{
		{"getent", "passwd", "1999999"}, {"getent", "group", "no-such-group"}, {"userdbctl", "user", "userns-web-0000-0"}, {"userdbctl", "user", "1999999"},
	} {
		if got, err := h.try(t, argv...); err == nil {
			t.Errorf("%q finds %q", argv, got)
		}
	}
	if got := h.run(t, "getent", "initgroups", "root"); strings.Contains(got, "userns") {
		t.Errorf("root's groups are %q", got)
	}
	if got := h.run(t, "getent", "passwd", "root"); !strings.HasPrefix(got, "root:") {
		t.Errorf("root is %q", got)
	}
}

// TestSystemdProgramsWithoutTheDaemon: a daemon that is down keeps nobody from looking up others.
func TestSystemdProgramsWithoutTheDaemon(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	h := newSystemdHost(t, n)
	id := fmt.Sprint(n.Pool().Start)
	h.run(t, "getent", "passwd", id)
	if err := n.Daemon.Kill9(); err != nil { // the socket stays
		t.Fatal(err)
	}
	if got, err := h.try(t, "getent", "passwd", id); err == nil {
		t.Errorf("the dead daemon tells %q", got)
	}
	h.run(t, "getent", "passwd", "root")
	h.run(t, "userdbctl", "user", "root")
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.run(t, "getent", "passwd", id)
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.World.Do(func() error { _, err := os.Lstat(namesSocket); return err }); !os.IsNotExist(err) {
		t.Errorf("after its end the daemon's socket: %v", err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil { // for the check of what is left
		t.Fatal(err)
	}
}
