package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/network"
)

// shmSize is the size of a pod's /dev/shm, as on other runtimes.
const shmSize = "64m"

// Files of the host that are copied into pods: the first into those that bring no DNS configuration of their own, the second
// for containers to which the client mounts none.
const (
	hostResolvConf = "/etc/resolv.conf"
	hostHosts      = "/etc/hosts"
)

// owner is who the files of a pod belong to on disk: the pod's root.
func (r Record) owner() int {
	if r.Range == nil {
		return 0
	}
	return int(r.Range.Start)
}

// makeFiles fills the sandbox's directory with what its containers see as /dev/shm,
// /etc/resolv.conf, /etc/hosts and /etc/hostname. All of it belongs to the pod's root on disk, so none of
// it needs an idmapped mount.
func (m *Manager) makeFiles(rec Record) error {
	p := m.Paths(rec.ID)
	resolv, err := resolvConf(rec.Spec.DNS)
	if err != nil {
		return err
	}
	if err := writeOwned(p.ResolvConf, resolv, rec.owner()); err != nil {
		return err
	}
	if err := writeOwned(p.Hostname, []byte(m.hostname(rec.Spec)+"\n"), rec.owner()); err != nil {
		return err
	}
	hosts, err := copyOfHost(hostHosts)
	if err != nil {
		return err
	}
	if hosts != nil {
		if err := writeOwned(p.Hosts, hosts, rec.owner()); err != nil {
			return err
		}
	}
	if rec.Spec.Namespaces.IPC == ModeNode {
		return nil
	}
	return mountShm(p.Shm, rec.owner())
}

// hostname is what the pod calls itself: its own choice, or the node's name in the host's network.
func (m *Manager) hostname(spec Spec) string {
	if spec.Hostname != "" {
		return spec.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

func writeOwned(path string, data []byte, owner int) error {
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write sandbox file: %w", err)
	}
	if err := os.Chown(path, owner, owner); err != nil {
		return fmt.Errorf("give sandbox file to the pod: %w", err)
	}
	return nil
}

// resolvConf renders a pod's DNS configuration, or copies the host's when there is none.
func resolvConf(dns *network.DNS) ([]byte, error) {
	if dns == nil {
		return copyOfHost(hostResolvConf)
	}
	var b strings.Builder
	if len(dns.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.Searches, " "))
	}
	for _, s := range dns.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(dns.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.Options, " "))
	}
	return []byte(b.String()), nil
}

// copyOfHost reads a file of the host; one that is missing is nil.
func copyOfHost(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("copy the host's file: %w", err)
	}
	return data, nil
}

func mountShm(path string, owner int) error {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return fmt.Errorf("make /dev/shm of the pod: %w", err)
	}
	data := fmt.Sprintf("mode=1777,size=%s,uid=%d,gid=%d", shmSize, owner, owner)
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mount /dev/shm of the pod at %s: %w", path, err)
	}
	return nil
}

// removeFiles undoes makeFiles, and takes what is missing for done. It removes names one by
// one: a recursive removal would descend into whatever is still mounted.
func removeFiles(p Paths) error {
	if err := unmountShm(p); err != nil {
		return err
	}
	var errs []error
	for _, path := range []string{p.Shm, p.ResolvConf, p.Hostname, p.Hosts, p.Namespaces, p.Dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", filepath.Base(path), err))
		}
	}
	return errors.Join(errs...)
}

// unmountShm takes a path that is missing or no mountpoint for done.
func unmountShm(p Paths) error {
	err := unix.Unmount(p.Shm, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", p.Shm, err)
	}
	return nil
}
