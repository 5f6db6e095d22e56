package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCreateMapsAndOwners(t *testing.T) {
	req := newRequest(t)
	pins := create(t, req)

	want := fmt.Sprintf("0 %d 65536", req.User.HostID)
	for _, name := range []string{"uid_map", "gid_map"} {
		if got := strings.Join(strings.Fields(insideOutput(t, pins, "cat", "/proc/self/"+name)), " "); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := insideOutput(t, pins, "cat", "/proc/self/setgroups"); got != "allow" {
		t.Errorf("setgroups = %q, want allow", got)
	}
	if got := insideOutput(t, pins, "hostname"); got != "pod-1" {
		t.Errorf("hostname = %q", got)
	}
	if uid, err := ownerUID(int(openPin(t, pins.User).Fd())); err != nil || uid != req.User.HostID {
		t.Errorf("NS_GET_OWNER_UID = %d, %v, want %d", uid, err, req.User.HostID)
	}
	if err := Check(pins, req.User); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestCreateOwnedByUserNamespace asks the kernel, without Check, who owns each namespace.
func TestCreateOwnedByUserNamespace(t *testing.T) {
	pins := create(t, newRequest(t))
	user := openPin(t, pins.User)
	var want unix.Stat_t
	if err := unix.Fstat(int(user.Fd()), &want); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pins.Network, pins.IPC, pins.UTS} {
		owner, err := unix.IoctlRetInt(int(openPin(t, path).Fd()), unix.NS_GET_USERNS)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var got unix.Stat_t
		err = unix.Fstat(owner, &got)
		unix.Close(owner)
		if err != nil || got.Ino != want.Ino || got.Dev != want.Dev {
			t.Errorf("%s belongs to user namespace %d:%d (%v), want %d:%d", path, got.Dev, got.Ino, err, want.Dev, want.Ino)
		}
	}
}

// TestCreateSysfs holds that a container of the pod will be able to mount /sys.
func TestCreateSysfs(t *testing.T) {
	pins := create(t, newRequest(t))
	got := insideOutput(t, pins, "unshare", "--mount", "sh", "-ec",
		"mount -t tmpfs none /mnt; mkdir /mnt/sys; mount -t sysfs sysfs /mnt/sys; ls /mnt/sys/class/net")
	if got != "lo" {
		t.Errorf("network devices in a fresh sysfs: %q, want lo", got)
	}
}

func TestCreateCombinations(t *testing.T) {
	for bits := range 16 {
		req := newRequest(t)
		req.Network, req.IPC, req.UTS = bits&1 != 0, bits&2 != 0, bits&4 != 0
		if bits&8 == 0 {
			req.User = nil
		}
		if !req.UTS {
			req.Hostname = ""
		}
		t.Run(fmt.Sprintf("user=%t,net=%t,ipc=%t,uts=%t", req.User != nil, req.Network, req.IPC, req.UTS), func(t *testing.T) {
			pins := create(t, req)
			if pins != req.pins() {
				t.Errorf("pins = %+v, want %+v", pins, req.pins())
			}
			if err := Check(pins, req.User); err != nil {
				t.Errorf("Check: %v", err)
			}
			for _, k := range kinds {
				host, err := os.Readlink("/proc/self/ns/" + k.proc)
				if err != nil {
					t.Fatal(err)
				}
				got := host
				if pins != (Pins{}) {
					got = insideOutput(t, pins, "readlink", "/proc/self/ns/"+k.proc)
				}
				if own := k.path(pins) != ""; own == (got == host) {
					t.Errorf("%s namespace: own %t, %s inside, %s on the host", k.name, own, got, host)
				}
			}
		})
	}
}

func TestCreateSysctls(t *testing.T) {
	req := newRequest(t)
	req.Sysctls = map[string]string{
		"kernel.shm_rmid_forced":              "1",
		"kernel/msgmax":                       "16384",
		"kernel.sem":                          "100 200 300 400",
		"kernel.domainname":                   "example.org",
		"fs.mqueue.msg_max":                   "77",
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net/ipv4/conf/lo/forwarding":         "1",
		"net.ipv4.ip_local_reserved_ports":    "",
	}
	before := readSysctls(t, req.Sysctls)
	pins := create(t, req)
	for name, want := range req.Sysctls {
		path, err := sysctlPath(name)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(strings.Fields(insideOutput(t, pins, "cat", "/proc/sys/"+strings.Join(path, "/"))), " ")
		if got != want {
			t.Errorf("%s = %q inside, want %q", name, got, want)
		}
	}
	for name, value := range readSysctls(t, req.Sysctls) {
		if value != before[name] {
			t.Errorf("%s of the host changed from %q to %q", name, before[name], value)
		}
	}
}

func readSysctls(t *testing.T, names map[string]string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for name := range names {
		path, err := sysctlPath(name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile("/proc/sys/" + strings.Join(path, "/"))
		if err != nil {
			t.Fatal(err)
		}
		values[name] = string(data)
	}
	return values
}

// TestWriteSysctlsOfInterface writes what can only be written after the pod's interface exists.
func TestWriteSysctlsOfInterface(t *testing.T) {
	for _, user := range []*IDMap{newIDs(), nil} {
		req := newRequest(t)
		req.User = user
		pins := create(t, req)
		late := map[string]string{"net.ipv4.conf.eth0/100.forwarding": "1"}
		if err := WriteSysctls(t.Context(), pins, req.User, late); !errors.Is(err, ErrSysctl) {
			t.Errorf("before the interface exists: %v, want %v", err, ErrSysctl)
		}
		insideOutput(t, pins, "ip", "link", "add", "eth0.100", "type", "veth", "peer", "name", "peer0")
		if err := WriteSysctls(t.Context(), pins, req.User, late); err != nil {
			t.Fatal(err)
		}
		if got := insideOutput(t, pins, "cat", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"); got != "1" {
			t.Errorf("forwarding = %q", got)
		}
		err := WriteSysctls(t.Context(), pins, req.User, map[string]string{"net.core.somaxconn": "1234", "kernel.panic": "1"})
		if !errors.Is(err, ErrSysctl) {
			t.Errorf("kernel.panic: %v, want %v", err, ErrSysctl)
		}
		if got := insideOutput(t, pins, "cat", "/proc/sys/net/core/somaxconn"); got == "1234" {
			t.Error("somaxconn was written beside a name that is refused")
		}
	}
}

// TestSysctlOwners holds what requireOwner relies on: everything that the kernel shows below
// /proc/sys/net in a namespace of the pod's is owned by the pod's root.
func TestSysctlOwners(t *testing.T) {
	req := newRequest(t)
	pins := create(t, req)
	var err error
	files := 0
	onThrowawayThread(func() {
		if err = enter(pins.Network, kindOf(unix.CLONE_NEWNET)); err != nil {
			return
		}
		err = filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if files++; info.Sys().(*syscall.Stat_t).Uid != req.User.HostID {
				t.Errorf("%s belongs to uid %d", path, info.Sys().(*syscall.Stat_t).Uid)
			}
			return nil
		})
	})
	if err != nil || files < 50 {
		t.Errorf("%d files seen: %v", files, err)
	}
}

func TestCreateFailureLeavesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Request)
		want   error
	}{
		"value that the kernel refuses": {func(r *Request) { r.Sysctls = map[string]string{"kernel.shm_rmid_forced": "seven"} }, ErrSysctl},
		"sysctl that does not exist":    {func(r *Request) { r.Sysctls = map[string]string{"net.core.nothing": "1"} }, ErrSysctl},
		"sysctl that is a directory":    {func(r *Request) { r.Sysctls = map[string]string{"net.core": "1"} }, ErrSysctl},
		"sysctl of the host":            {func(r *Request) { r.Sysctls = map[string]string{"kernel.panic": "1"} }, ErrSysctl},
		"path of the network namespace": {func(r *Request) { r.NetPath = "/proc/version/net" }, unix.ENOTDIR},
		"ids that no map takes":         {func(r *Request) { r.User.HostID = 0xFFFF0000 }, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			req := newRequest(t)
			tt.change(&req)
			if pins, err := Create(t.Context(), req); !errors.Is(err, tt.want) || pins != (Pins{}) {
				t.Errorf("Create = %+v, %v, want %v", pins, err, tt.want)
			}
			if entries, err := os.ReadDir(filepath.Dir(req.Dir)); err != nil || len(entries) > 1 || len(entries) == 1 && !emptyDir(t, req.Dir) {
				t.Errorf("left: %v, %v", entries, err)
			}
			_ = os.Remove(req.Dir)
		})
	}
}

func emptyDir(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

func TestCreateCancelled(t *testing.T) {
	req := newRequest(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	cancel(why)
	if _, err := Create(ctx, req); !errors.Is(err, why) {
		t.Errorf("Create = %v, want %v", err, why)
	}
}

// TestCreateTwice holds that a second creation neither disturbs nor removes the pins of the first.
func TestCreateTwice(t *testing.T) {
	req := newRequest(t)
	pins := create(t, req)
	if _, err := Create(t.Context(), req); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create = %v, want %v", err, fs.ErrExist)
	}
	if err := Check(pins, req.User); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestCreateParallel also looks at every thread of this process afterwards: none may carry
// anything of a pod.
func TestCreateParallel(t *testing.T) {
	const pods = 50
	before := threadStates(t)
	if len(before) != 1 {
		t.Fatalf("threads differ before the test: %q", before)
	}
	reqs := make([]Request, pods)
	for i := range reqs {
		reqs[i] = newRequest(t)
		reqs[i].Hostname = "pod-" + strconv.Itoa(i)
		reqs[i].Sysctls = map[string]string{"kernel.msgmax": strconv.Itoa(10000 + i)}
	}
	var wg sync.WaitGroup
	for i, req := range reqs {
		wg.Go(func() {
			pins, err := Create(t.Context(), req)
			if err == nil {
				err = Check(pins, req.User)
			}
			if err != nil {
				t.Errorf("pod %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i, req := range reqs[:5] {
		got := insideOutput(t, req.pins(), "sh", "-c", "hostname; cat /proc/sys/kernel/msgmax /proc/self/uid_map")
		want := fmt.Sprintf("pod-%d %d 0 %d 65536", i, 10000+i, req.User.HostID)
		if strings.Join(strings.Fields(got), " ") != want {
			t.Errorf("inside pod %d: %q, want %q", i, got, want)
		}
	}
	for _, req := range reqs {
		wg.Go(func() { remove(t, req) })
	}
	wg.Wait()
	// The threads that entered namespaces die after Create has returned.
	var after []string
	for range 2000 {
		if after = threadStates(t); slices.Equal(after, before) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("threads before: %q\nafter: %q", before, after)
}

// threadStates returns the distinct credentials, limits and namespaces of this process's threads.
func threadStates(t *testing.T) []string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("threads: %v, %v", tasks, err)
	}
	var states []string
	for _, task := range tasks {
		status, err := os.ReadFile(task + "/status")
		if err != nil {
			continue // a thread that has just ended
		}
		var b strings.Builder
		for line := range strings.Lines(string(status)) {
			if key, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh"}, key) {
				b.WriteString(line)
			}
		}
		limits, _ := os.ReadFile(task + "/limits")
		b.Write(limits)
		for _, k := range kinds {
			link, err := os.Readlink(task + "/ns/" + k.proc)
			if err != nil {
				b.Reset()
				break
			}
			b.WriteString(link)
		}
		if b.Len() > 0 {
			states = append(states, b.String())
		}
	}
	slices.Sort(states)
	return slices.Compact(states)
}

// TestCreateKeepsDumpable: a change of the effective uid in this process would clear it.
func TestCreateKeepsDumpable(t *testing.T) {
	create(t, newRequest(t))
	if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != 1 {
		t.Errorf("PR_GET_DUMPABLE = %d, %v, want 1", got, err)
	}
}

// TestInotifyCountsApart lets two pods hold three quarters of the host's limit each, at one time.
// TestSignalsOfPodAreNotCappedByCreator: the soft limit of the process that creates a user
// namespace must not become the pod's.
// TestCreateUnderZeroLimit runs in a user namespace of its own, so that the host's limit stays.
// createUnderZeroLimit is the process of that test: root of a user namespace with two ranges.
