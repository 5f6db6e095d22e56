package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// nodeEnv is set in the process that plays the node.
const nodeEnv = "NETWORK_TEST_NODE"

// TestMain runs the tests in network and mount namespaces of their own, so that bridges, rules
// and libcni's cache are not the machine's. Without root it runs those that need none of it.
func TestMain(m *testing.M) {
	if os.Getenv(nodeEnv) == "" {
		code, err := runNode()
		if errors.Is(err, unix.EPERM) {
			code, err = m.Run(), nil
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			code = 1
		}
		os.Exit(code)
	}
	if err := prepareNode(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare node:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// runNode runs the tests in such a process and returns its exit code. It wraps EPERM when it may
// not.
func runNode() (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	runtime.LockOSThread() // the thread that Pdeathsig is about
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func prepareNode() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/var/lib", "/run"} { // libcni's cache; lock of iptables
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up lo: %w: %s", err, out)
	}
	return nil
}

// libcniCache is where libcni remembers attachments.
const libcniCache = "/var/lib/cni"

// plugins are CNI plugins of the tests' own: what each answers, by command. Before it answers, a
// plugin records its arguments and standard input in NAME.COMMAND below DIR.
var plugins = map[string]string{
	"recorder":  `[ $CNI_COMMAND != ADD ] || echo "$result"`,
	"failer":    `case $CNI_COMMAND in ADD|STATUS) echo '{"cniVersion": "1.0.0", "code": 50, "msg": "the failer fails"}'; exit 1;; esac`,
	"forgetter": `case $CNI_COMMAND in ADD) echo "$result";; DEL) echo '{"cniVersion": "1.0.0", "code": 3, "msg": "no such container"}'; exit 1;; esac`,
	"slow":      `[ $CNI_COMMAND != DEL ] || { sleep 1; touch "@DIR@/slow.done"; }; [ $CNI_COMMAND != ADD ] || echo "$result"`,
	"sleeper":   `[ $CNI_COMMAND != ADD ] || exec sleep 1000`,
}

const pluginScript = `#!/bin/sh -e
{ echo "$CNI_COMMAND $CNI_ARGS"; cat; } > "@DIR@/@NAME@.$CNI_COMMAND"
if [ $CNI_COMMAND = VERSION ]; then
	echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}'
	exit
fi
result='{"cniVersion": "1.0.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}],
	"ips": [{"address": "192.0.2.7/24", "interface": 0}]}'
`

// node is a Network with the plugins of `make tools` and those above.
type node struct {
	*Network
	confDir string
	dir     string // of host-local's reservations, and of the records of plugins
}

func newNode(t testing.TB, opts Options) *node {
	t.Helper()
	testkit.RequireRoot(t)
	n := &node{confDir: filepath.Join(t.TempDir(), "net.d"), dir: t.TempDir()}
	binDir := t.TempDir()
	for name, answers := range plugins {
		script := strings.NewReplacer("@DIR@", n.dir, "@NAME@", name).Replace(pluginScript + answers)
		if err := os.WriteFile(filepath.Join(binDir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	opts.BinDirs = []string{binDir, filepath.Dir(testkit.RequireBin(t, "cni/bridge"))}
	opts.ConfDir = n.confDir
	var err error
	if n.Network, err = New(opts); err != nil {
		t.Fatal(err)
	}
	return n
}

// configure writes one file of the CNI configuration; DIR in it stands for n.dir.
func (n *node) configure(t testing.TB, name, content string) {
	t.Helper()
	if err := os.MkdirAll(n.confDir, 0o700); err != nil {
		t.Fatal(err)
	}
	content = strings.ReplaceAll(content, "DIR", n.dir)
	if err := os.WriteFile(filepath.Join(n.confDir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reserved returns the addresses that host-local holds.
func (n *node) reserved(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.dir, "*", "*.*.*.*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// record returns how a plugin of ours was last called, or "".
func (n *node) record(name, command string) string {
	data, _ := os.ReadFile(filepath.Join(n.dir, name+"."+command))
	return string(data)
}

var nextPod atomic.Uint32

// newPod returns a pod with a network namespace of its own.
func newPod(t testing.TB) Pod {
	t.Helper()
	testkit.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "net")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropNetNS(t, path) })
	number := strconv.Itoa(int(nextPod.Add(1)))
	return Pod{ID: "sandbox" + number, Name: "pod" + number, Namespace: "default", UID: "uid" + number, NetNSPath: path}
}

// inNetNS runs fn on a thread in the pod's network namespace. Sockets that it opens stay there.
func inNetNS(t testing.TB, pod Pod, fn func() error) {
	t.Helper()
	ns, err := os.Open(pod.NetNSPath)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// dropNetNS unmounts a namespace, unless that was done.
func dropNetNS(t testing.TB, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}

// inPod runs a program in the pod's network namespace and returns what it printed.
func inPod(t testing.TB, pod Pod, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + pod.NetNSPath, "--"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q in the pod: %v: %s", args, err, out)
	}
	return string(out)
}

// state is what CNI leaves on a node: devices, rules, addresses, libcni's cache.
func (n *node) state(t testing.TB) string {
	t.Helper()
	links, err := exec.Command("ip", "-o", "link", "show", "type", "veth").CombinedOutput()
	if err != nil {
		t.Fatalf("ip: %v: %s", err, links)
	}
	rules, err := exec.Command("iptables-save").CombinedOutput()
	if err != nil {
		t.Fatalf("iptables-save: %v: %s", err, rules)
	}
	var kept []string
	for line := range strings.Lines(string(rules)) {
		if strings.HasPrefix(line, "-A") {
			kept = append(kept, line)
		}
	}
	cache, err := filepath.Glob(libcniCache + "/results/*")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("links:\n%s\nrules:\n%s\ncache: %q\nreserved: %q", links, strings.Join(kept, ""), cache, n.reserved(t))
}
