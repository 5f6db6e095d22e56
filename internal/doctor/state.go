package doctor

import (
	"context"
	"os"
	"path/filepath"
)

// leastFree is the part of the disk below which databases and writable layers are at risk.
const leastFree = 0.05

func (x *exam) checkState(context.Context) {
	path := filepath.Join(x.Node.Root, "state.db")
	switch err := x.Ports.State(path); {
	case err == nil:
		x.ok("state", "the database %s is well", path)
	case absent(err):
		x.add("state", Info, "", "%s is not there yet: userns-shim makes it at its first start", path)
	default:
		x.add("state", Error, "systemctl stop userns-shim; userns-shim pool rebuild --config /etc/userns-shim/config.yaml --dry-run; the same without --dry-run; systemctl start userns-shim", "%v", err)
	}
	free, err := x.Ports.FreeSpace(x.Node.Root)
	switch {
	case absent(err):
	case err != nil:
		x.add("state", Unknown, "df "+x.Node.Root, "how full the disk is is not known: %v", err)
	case free < leastFree:
		x.add("state", Warning, "make room: df -h "+x.Node.Root+"; df -i "+x.Node.Root, "only %.1f %% of the disk of %s is free", free*100, x.Node.Root)
	default:
		x.ok("state", "%.0f %% of the disk of %s is free", free*100, x.Node.Root)
	}
}

func (x *exam) open(path string) (*os.File, error) { return os.Open(filepath.Join(x.FS, path)) }

func (x *exam) stat(path string) (os.FileInfo, error) { return os.Stat(filepath.Join(x.FS, path)) }
