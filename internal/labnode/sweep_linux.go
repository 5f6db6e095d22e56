package labnode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// lockFile is in each node's directory and locked for as long as its owner lives.
const lockFile = "lock"

// Sweep removes the nodes that an earlier run left behind because it was killed before it could Close them:
// processes, cgroups, directories. A node whose owner lives is not touched.
func Sweep(ctx context.Context) error {
	base := os.Getenv(DirEnv)
	if base == "" {
		base = "/tmp"
	}
	paths, err := filepath.Glob(filepath.Join(base, dirPrefix+"*", lockFile))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, sweepNode(ctx, path))
	}
	return errors.Join(errs...)
}

func sweepNode(ctx context.Context, path string) error {
	lock, err := tryLock(path)
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	dir := filepath.Dir(path)
	name := filepath.Base(dir)
	return errors.Join(killMarked(ctx, name), RemoveCgroups(name), RemoveDir(dir))
}
