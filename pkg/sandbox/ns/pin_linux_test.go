package ns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

func TestRemoveIsIdempotent(t *testing.T) {
	req := newRequest(t)
	if err := Remove(t.Context(), req.Dir, req.NetPath); err != nil {
		t.Errorf("before Create: %v", err)
	}
	pins := create(t, req)
	remove(t, req)
	remove(t, req)
	if err := Check(pins, req.User); !errors.Is(err, ErrNotPinned) {
		t.Errorf("Check after Remove = %v, want %v", err, ErrNotPinned)
	}
}

// TestRemovePartial removes what a crash can leave at any point of Create: files without
// mounts, some pins without others; and one pinned twice by hand.
func TestRemovePartial(t *testing.T) {
	req := newRequest(t)
	pins := create(t, req)
	if err := unix.Unmount(pins.IPC, 0); err != nil {
		t.Fatal(err)
	}
	if err := Check(pins, req.User); !errors.Is(err, ErrNotPinned) {
		t.Errorf("Check with the IPC namespace unmounted = %v, want %v", err, ErrNotPinned)
	}
	if err := unix.Unmount(pins.User, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(pins.User); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(pins.UTS, pins.UTS, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	remove(t, req)
}

func TestRemoveKeepsStrangers(t *testing.T) {
	req := newRequest(t)
	create(t, req)
	stranger := filepath.Join(req.Dir, "stranger")
	if err := os.WriteFile(stranger, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), req.Dir, req.NetPath); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Remove = %v, want %v", err, unix.ENOTEMPTY)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error(err)
	}
	if err := os.Remove(stranger); err != nil {
		t.Fatal(err)
	}

	dir := filepath.Join(filepath.Dir(req.Dir), "mountpoint")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), "", dir); err == nil {
		t.Error("Remove took a directory for a pin")
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}

// TestPinsOnSharedMount holds that pins work where /run is shared, as systemd has it, and that
// removing them reaches another mount namespace: one that received them by propagation, and one
// that cloned them and is private.
func TestPinsOnSharedMount(t *testing.T) {
	req := newRequest(t)
	top := filepath.Dir(req.Dir)
	if err := unix.Mount("none", top, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(top, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", top, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	slave := mountNamespace(t, "slave")
	pins, err := Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, req) })
	private := mountNamespace(t, "private")
	for name, mountinfo := range map[string]string{"slave": slave, "private": private} {
		if n := countMounts(t, mountinfo, top); n != 5 { // the tmpfs and four pins
			t.Errorf("%d mounts in the %s mount namespace, want 5", n, name)
		}
	}
	if err := Check(pins, req.User); err != nil {
		t.Error(err)
	}
	remove(t, req)
	for name, mountinfo := range map[string]string{"slave": slave, "private": private} {
		if n := countMounts(t, mountinfo, top); n != 1 {
			t.Errorf("%d mounts left in the %s mount namespace, want the tmpfs", n, name)
		}
	}
}

// mountNamespace starts a process in a mount namespace of its own and returns its mountinfo.
func mountNamespace(t *testing.T, propagation string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--mount", "--propagation="+propagation, "sh", "-c", "echo; exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "mountinfo")
}

func countMounts(t *testing.T, mountinfo, below string) int {
	t.Helper()
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), " "+below)
}

func TestCheckForeign(t *testing.T) {
	req, other := newRequest(t), newRequest(t)
	pins, others := create(t, req), create(t, other)
	for name, tt := range map[string]struct {
		pins Pins
		user *IDMap
		want error
	}{
		"another owner":                    {pins, other.User, ErrForeign},
		"another pod's network":            {Pins{User: pins.User, Network: others.Network}, req.User, ErrForeign},
		"a network in place of a user":     {Pins{User: pins.Network}, req.User, ErrForeign},
		"a UTS in place of an IPC":         {Pins{User: pins.User, IPC: pins.UTS}, req.User, ErrForeign},
		"a pod's network for a host's pod": {Pins{Network: pins.Network}, nil, ErrForeign},
		"a plain file":                     {Pins{User: "/proc/version"}, req.User, ErrNotPinned},
		"nothing":                          {Pins{User: pins.User + "x"}, req.User, ErrNotPinned},
		"a mapping without a pin":          {Pins{}, req.User, ErrInvalid},
	} {
		if err := Check(tt.pins, tt.user); !errors.Is(err, tt.want) {
			t.Errorf("%s: Check = %v, want %v", name, err, tt.want)
		}
	}
}

// TestCheckLimits compares with what the kernel says of this process.
func TestCheckLimits(t *testing.T) {
	testkit.RequireRoot(t)
	may, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil {
		t.Fatal(err)
	}
	err = CheckLimits()
	if may && err != nil {
		t.Errorf("with CAP_SYS_RESOURCE: %v", err)
	}
	for _, a := range accounted {
		var l unix.Rlimit
		if err := unix.Getrlimit(a.resource, &l); err != nil {
			t.Fatal(err)
		}
		capped := !may && l.Max != unix.RLIM_INFINITY
		if named := err != nil && strings.Contains(err.Error(), a.name); named != capped {
			t.Errorf("%s: capped %t, CheckLimits = %v", a.name, capped, err)
		}
	}
}
