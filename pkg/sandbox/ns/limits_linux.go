package ns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// accounted are the resource limits that a user namespace inherits from its creator as a cap on
// everything inside, whatever limits the processes in it have of their own (kernel 5.14).
var accounted = [...]struct {
	resource int
	name     string
}{
	{unix.RLIMIT_SIGPENDING, "SIGPENDING"},
	{unix.RLIMIT_MEMLOCK, "MEMLOCK"},
	{unix.RLIMIT_MSGQUEUE, "MSGQUEUE"},
}

// CheckLimits reports the resource limits of this process that cap what all processes of one pod
// with a user namespace can have together. Create lifts them for the pod where it may, which
// takes CAP_SYS_RESOURCE, and otherwise raises them to the hard limit; so the remedy is to start
// userns-shim with unlimited ones (LimitSIGPENDING=, LimitMEMLOCK= and LimitMSGQUEUE=infinity in
// its unit). It returns nil when nothing is capped. Create does not fail for it.
func CheckLimits() error {
	may, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil || may {
		return err
	}
	var errs []error
	for _, a := range accounted {
		var l unix.Rlimit
		if err := unix.Getrlimit(a.resource, &l); err != nil {
			errs = append(errs, fmt.Errorf("get rlimit %s: %w", a.name, err))
		} else if l.Max != unix.RLIM_INFINITY {
			errs = append(errs, fmt.Errorf("rlimit %s is %d for each pod with a user namespace", a.name, l.Max))
		}
	}
	return errors.Join(errs...)
}

// liftLimits removes those limits from the process that is about to create a user namespace, or
// raises them as far as it goes. The limits of this process stay as they are.
func liftLimits(pid int) error {
	for _, a := range accounted {
		unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		err := unix.Prlimit(pid, a.resource, &unlimited, nil)
		if errors.Is(err, unix.EPERM) {
			var now unix.Rlimit
			if err = unix.Prlimit(pid, a.resource, nil, &now); err == nil {
				err = unix.Prlimit(pid, a.resource, &unix.Rlimit{Cur: now.Max, Max: now.Max}, nil)
			}
		}
		if err != nil {
			return fmt.Errorf("set rlimit %s of the namespace child: %w", a.name, err)
		}
	}
	return nil
}

func hasCapability(capability uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("get capabilities: %w", err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0, nil
}

// kind describes one kind of namespace by the flag that creates it.
type kind struct {
	flag   uintptr
	name   string // as in messages
	proc   string // file in /proc/<pid>/ns
	sysctl string // limit of their number
}

// kinds are in the order of creation: what comes after the user namespace belongs to it.
var kinds = [...]kind{
	{unix.CLONE_NEWUSER, "user", "user", "user.max_user_namespaces"},
	{unix.CLONE_NEWNET, "network", "net", "user.max_net_namespaces"},
	{unix.CLONE_NEWIPC, "IPC", "ipc", "user.max_ipc_namespaces"},
	{unix.CLONE_NEWUTS, "UTS", "uts", "user.max_uts_namespaces"},
}

// path returns where p pins a namespace of kind k.
func (k kind) path(p Pins) string {
	switch k.flag {
	case unix.CLONE_NEWUSER:
		return p.User
	case unix.CLONE_NEWNET:
		return p.Network
	case unix.CLONE_NEWIPC:
		return p.IPC
	default:
		return p.UTS
	}
}

// unshareError explains why a namespace could not be made. The kernel answers ENOSPC, and older
// ones EUSERS, to everybody including root when a limit is reached; some distributions ship a
// limit of 0.
func unshareError(flag uintptr, err error) error {
	k := kindOf(flag)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EUSERS) {
		return fmt.Errorf("create %s namespace: %w", k.name, err)
	}
	limit, readErr := os.ReadFile("/proc/sys/" + strings.ReplaceAll(k.sysctl, ".", "/"))
	if readErr != nil {
		limit = []byte("unknown")
	}
	return fmt.Errorf("create %s namespace: %w: raise sysctl %s (now %s): %w",
		k.name, ErrNamespaceLimit, k.sysctl, strings.TrimSpace(string(limit)), err)
}

func kindOf(flag uintptr) kind {
	for _, k := range kinds {
		if k.flag == flag {
			return k
		}
	}
	if flag == unix.CLONE_NEWPID {
		return kind{flag: flag, name: "PID"}
	}
	return kind{flag: flag, name: fmt.Sprintf("%#x", flag)}
}
