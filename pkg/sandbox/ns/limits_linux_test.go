package ns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

func TestInotifyCountsApart(t *testing.T) {
	testkit.RequireRoot(t)
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(limit * 3 / 4)
	for pod := range 2 {
		cmd := insideHelper(t, create(t, newRequest(t)), "inotify", want)
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
			if err := cmd.Wait(); err != nil {
				t.Errorf("helper: %v", err)
			}
		})
		got, err := bufio.NewReader(stdout).ReadString('\n')
		if strings.TrimSpace(got) != want {
			t.Errorf("pod %d got %q inotify instances (%v), want %s of %d", pod, got, err, want, limit)
		}
	}
}

func TestSignalsOfPodAreNotCappedByCreator(t *testing.T) {
	testkit.RequireRoot(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &was); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 20, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_SIGPENDING, &low); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_SIGPENDING, &was); err != nil {
			t.Error(err)
		}
	})
	out, err := insideHelper(t, create(t, newRequest(t)), "sigpending", "100").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "100" {
		t.Errorf("%s signals queued inside, want 100: %v", got, err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_SIGPENDING, &now); err != nil || now != low {
		t.Errorf("the creator's own limit became %+v: %v", now, err)
	}
}

func TestCreateUnderZeroLimit(t *testing.T) {
	testkit.RequireRoot(t)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	ids := newIDs()
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.HostID), Size: 2 * 65536}}
	newIDs() // the second half of the mapping
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), helperEnv+"=no-userns")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		Credential:  &syscall.Credential{},
		UidMappings: mapping, GidMappings: mapping, GidMappingsEnableSetgroups: true,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func createUnderZeroLimit() error {
	if err := unix.Mount("none", "/mnt", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	req := Request{User: &IDMap{HostID: 65536, Length: 65536}, Network: true, Dir: "/mnt/ns", NetPath: "/mnt/net"}
	limit := func(name, value string) error {
		return os.WriteFile("/proc/sys/user/max_"+name+"_namespaces", []byte(value), 0)
	}
	for _, name := range []string{"user", "net"} {
		if err := limit(name, "0"); err != nil {
			return err
		}
		_, err := Create(context.Background(), req)
		want := "raise sysctl user.max_" + name + "_namespaces (now 0)"
		if !errors.Is(err, ErrNamespaceLimit) || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("Create = %w, want %q", err, want)
		}
		if err := limit(name, "100"); err != nil {
			return err
		}
	}
	if entries, err := os.ReadDir("/mnt"); err != nil || len(entries) > 0 {
		return fmt.Errorf("left: %v, %w", entries, err)
	}
	pins, err := Create(context.Background(), req)
	if err != nil {
		return fmt.Errorf("with the limits raised: %w", err)
	}
	return errors.Join(Check(pins, req.User), Remove(context.Background(), req.Dir, req.NetPath))
}
