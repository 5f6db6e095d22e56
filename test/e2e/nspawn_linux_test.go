package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// systemd's window for containers, of which systemd-nspawn and systemd-nsresourced pick ranges.
const (
	containerWindow    = 0x00080000
	containerWindowEnd = 0x6FFF0000
)

// nspawn starts a container of systemd-nspawn's whose range it picks, and returns the range's first id, 0 for none,
// with what nspawn says. Below /run/systemd it sees only the user database.
func (h systemdHost) nspawn(t *testing.T, tree string) (uint64, string) {
	t.Helper()
	const script = `mount --bind "$1" /etc/nsswitch.conf
mount --bind /run/systemd/userdb "$2"
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/userdb
mount --bind "$2" /run/systemd/userdb
exec "$3" systemd-nspawn --directory="$4" --private-users=pick --private-users-ownership=off --register=no --keep-unit --console=pipe /bin/probe`
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script, "sh", h.nsswitch, t.TempDir(), h.programs, tree)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_LOG_TARGET=console")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := h.n.World.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("the probe without a subcommand succeeds in nspawn")
	}
	picked := regexp.MustCompile(`user namespace base (\d+)`).FindStringSubmatch(said.String())
	if picked == nil {
		return 0, said.String()[max(0, said.Len()-1000):]
	}
	start, err := strconv.ParseUint(picked[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return start, ""
}

// TestNspawnSkipsThePool: systemd-nspawn asks the user database before it takes a range. A pool of the whole window
// that it picks from leaves it none, although every range is free; without the daemon it finds one.
func TestNspawnSkipsThePool(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	h := newSystemdHost(t, n)
	tree := t.TempDir()
	for _, dir := range []string{"bin", "usr", "etc", "dev", "proc", "sys", "run", "tmp", "root", "var"} {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/probe"), shared.programs(t).probe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/os-release"), []byte("ID=probe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if start, said := h.nspawn(t, tree); start < containerWindow || start >= containerWindowEnd {
		t.Fatalf("with the pool elsewhere nspawn picks %d: %s", start, said)
	}
	if err := n.Daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	setExtents(t, n, labnode.Extent{Start: containerWindow, Length: containerWindowEnd - containerWindow})
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if start, said := h.nspawn(t, tree); start != 0 || !strings.Contains(said, "resource busy") {
		t.Errorf("nspawn picks %d of the pool: %s", start, said)
	}
}
