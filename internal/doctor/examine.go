package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Kernel answers what the kernel can do; *kernel.Prober is one.
type Kernel interface {
	Features() []kernel.Feature
	IDMapped(path string) error
	OverlayLayersIDMapped(dir string) error
	CgroupMode() kernel.CgroupMode
}

// Plugin is one of containerd's.
type Plugin struct {
	Type, ID string
	Err      string // why it does not work
}

// Engine is containerd.
type Engine interface {
	Version(ctx context.Context) (string, error)
	Plugins(ctx context.Context) ([]Plugin, error)
	// SnapshotterRoot is where a snapshotter keeps its data.
	SnapshotterRoot(ctx context.Context, snapshotter string) (string, error)
}

// Handler is a runtime handler of the configuration.
type Handler struct {
	Name        string
	BinaryName  string // of the OCI runtime
	Snapshotter string
	Never       bool // gives no pod a user namespace
}

// Node are the settings of userns-shim that matter.
type Node struct {
	Listen        string // unix:///path
	Root          string
	Containerd    string // path of its socket
	ConfDir       string // of CNI
	SystemdCgroup bool
	Handlers      []Handler
	NRI           string // path of its socket; empty where it is off
}

// Daemon is the userns-shim that runs on the node.
type Daemon struct {
	PID     int
	Version string // of the program of that process, empty where it is not known
}

// Ports are what Examine asks that is no file. All are required.
type Ports struct {
	Kernel Kernel
	Engine Engine
	// UserNamespaces is why a handler gives no pod a user namespace.
	UserNamespaces func(ctx context.Context, handler string) error
	// Network is why pods get no network.
	Network func(ctx context.Context) error
	// KubeletUser says whether the user kubelet exists.
	KubeletUser func() (bool, error)
	// Getsubids is the program; ErrNoProgram where there is none.
	Getsubids func(ctx context.Context, args ...string) (string, error)
	// Daemon is the error why it does not answer.
	Daemon func(ctx context.Context) (Daemon, error)
	// State checks the database and changes nothing; nil where it is in use or well.
	State func(path string) error
	// FreeSpace is the part of a filesystem that is free, between 0 and 1, of its bytes or its inodes, whichever is less.
	FreeSpace func(path string) (float64, error)
}

// ErrNoProgram says that a program is not installed.
var ErrNoProgram = errors.New("no such program")

// Options are for Examine.
type Options struct {
	// FS is the host's root directory.
	FS      string
	Version string // of this program
	Node    Node
	Ports   Ports
}

// exam is an examination under way.
type exam struct {
	Options
	findings []Finding
	daemon   Daemon
	down     error // why the daemon does not answer
	engine   error // why containerd does not answer
	kubelet  kubelet
}

// examTime bounds an examination.
const examTime = time.Minute

// Examine looks over a node. The findings are in the order of the checks.
func Examine(ctx context.Context, o Options) Report {
	ctx, cancel := context.WithTimeout(ctx, examTime)
	defer cancel()
	x := &exam{Options: o}
	x.kubelet = x.findKubelet()
	for _, check := range []func(context.Context){
		x.checkDaemon, x.checkKernel, x.checkContainerd, x.checkHandlers, x.checkFilesystems, x.checkNetwork, x.checkCgroups,
		x.checkSysctls, x.checkLimits, x.checkKubelet, x.checkSubIDs, x.checkState,
	} {
		check(ctx)
	}
	return Report{Findings: x.findings}
}

func (x *exam) add(check string, s Severity, remedy, format string, args ...any) {
	x.findings = append(x.findings, Finding{Check: check, Severity: s, Message: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (x *exam) ok(check, format string, args ...any) { x.add(check, OK, "", format, args...) }

// maxFile bounds what is read of a file, in bytes.
const maxFile = 1 << 20

// read returns a file of the node without white space around it.
func (x *exam) read(path string) (string, error) {
	info, err := os.Stat(filepath.Join(x.FS, path))
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return "", fmt.Errorf("read %s: not a file of at most %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(filepath.Join(x.FS, path))
	return strings.TrimSpace(string(text)), err
}

// sysctl returns one that is a number; there is none where the kernel does not have it.
func (x *exam) sysctl(name string) (value int64, there bool) {
	text, err := x.read("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, false
	}
	value, err = strconv.ParseInt(strings.Fields(text + " x")[0], 10, 64)
	return value, err == nil
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// kubeletLine is what an installer puts into /etc/subuid and /etc/subgid.
func kubeletLine() string { return "kubelet:" + idpool.DefaultKubeletExtents()[0].String() }
