package ns

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
)

var (
	// ErrInvalid says that a request contradicts itself or names something impossible.
	// Nothing was created.
	ErrInvalid = errors.New("invalid namespace request")

	// ErrNamespaceLimit says that the kernel refused one more namespace. The message names the
	// sysctl that an administrator has to raise.
	ErrNamespaceLimit = errors.New("limit of namespaces reached")
)

// IDMap is the one extent `0 HostID Length` of a pod's uid_map and gid_map.
type IDMap struct {
	HostID uint32 `json:"hostId"`
	Length uint32 `json:"length"`
}

// Request describes the namespaces of one pod.
type Request struct {
	// User is the mapping of the pod's user namespace; nil leaves the pod in the host's.
	User *IDMap
	// Network, IPC and UTS ask for namespaces of the pod's own.
	Network, IPC, UTS bool
	// Hostname is set in the pod's UTS namespace; empty keeps the name of the host.
	Hostname string
	// Dir receives the pins of the user, IPC and UTS namespaces. It is made when missing and
	// must hold no pins: it belongs to this sandbox.
	Dir string
	// NetPath is the pin of the network namespace, as NetNSPath gives it.
	NetPath string
	// Sysctls are written after the namespaces exist and before Create returns. Those that
	// name a network interface cannot be: see SplitSysctls.
	Sysctls map[string]string
}

// Pins are the paths that keep a pod's namespaces alive. An empty path means that the pod shares
// that namespace with the host.
type Pins struct {
	User    string `json:"user,omitempty"`
	Network string `json:"network,omitempty"`
	IPC     string `json:"ipc,omitempty"`
	UTS     string `json:"uts,omitempty"`
	// PID is that of a pod whose containers share one, and is made by PinPID: only a process can
	// make a PID namespace. Create, Check and Remove leave it alone.
	PID string `json:"pid,omitempty"`
}

// own returns which of the namespaces that sysctls can belong to are the pod's.
func (p Pins) own() Own {
	return Own{Network: p.Network != "", IPC: p.IPC != "", UTS: p.UTS != ""}
}

// pins returns where the namespaces of r will be pinned.
func (r Request) pins() Pins {
	var p Pins
	if r.User != nil {
		p.User = filepath.Join(r.Dir, userPin)
	}
	if r.Network {
		p.Network = r.NetPath
	}
	if r.IPC {
		p.IPC = filepath.Join(r.Dir, ipcPin)
	}
	if r.UTS {
		p.UTS = filepath.Join(r.Dir, utsPin)
	}
	return p
}

// maxHostname is the kernel's __NEW_UTS_LEN.
const maxHostname = 64

// validate reports what is wrong with r, without touching the system.
func (r Request) validate() error {
	if r.User != nil {
		if err := r.User.validate(); err != nil {
			return err
		}
	}
	pins := r.pins()
	if pins.User+pins.IPC+pins.UTS != "" && !cleanAbs(r.Dir) {
		return fmt.Errorf("%w: pin directory %q is not a clean absolute path", ErrInvalid, r.Dir)
	}
	if r.Network && !cleanAbs(r.NetPath) {
		return fmt.Errorf("%w: network namespace path %q is not a clean absolute path", ErrInvalid, r.NetPath)
	}
	if r.Hostname != "" && !r.UTS {
		return fmt.Errorf("%w: hostname %q without a UTS namespace", ErrInvalid, r.Hostname)
	}
	if len(r.Hostname) > maxHostname || strings.ContainsRune(r.Hostname, 0) {
		return fmt.Errorf("%w: hostname %q does not fit %d bytes", ErrInvalid, r.Hostname, maxHostname)
	}
	for name := range r.Sysctls {
		if err := ValidateSysctl(name, pins.own()); err != nil {
			return err
		}
	}
	return nil
}

// validate refuses what the kernel refuses: an empty extent, and one that reaches 4294967295,
// which is (uid_t)-1.
func (m IDMap) validate() error {
	if m.Length == 0 || uint64(m.HostID)+uint64(m.Length) > math.MaxUint32 {
		return fmt.Errorf("%w: %d ids from host id %d on cannot be mapped", ErrInvalid, m.Length, m.HostID)
	}
	return nil
}

func cleanAbs(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && !strings.ContainsRune(path, 0)
}
