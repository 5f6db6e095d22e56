package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	"github.com/containerd/containerd/v2/pkg/archive"
)

// ShmFile is an archive of the pod's /dev/shm.
const ShmFile = metadata.DevShmCheckpointTar

// PackTree writes a directory outside the root filesystem, such as a volume that the image declares,
// into a checkpoint. Nothing writes to it meanwhile.
func PackTree(ctx context.Context, root *os.Root, name, tree string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("pack %s into checkpoint: %w", tree, err)
	}
	err = archive.WriteDiff(ctx, f, "", tree)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("pack %s into checkpoint: %w", tree, err)
	}
	return nil
}

// UnpackTree fills a directory with what PackTree wrote. Nothing of the container runs yet, so nobody
// changes the directory under the unpacking, which resolves links inside of it. A checkpoint without that
// archive leaves the directory as it is.
func UnpackTree(ctx context.Context, root *os.Root, name, tree string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unpack %s from checkpoint: %w", tree, err)
	}
	defer f.Close()
	if _, err := archive.Apply(ctx, tree, f); err != nil {
		return fmt.Errorf("unpack %s from checkpoint: %w", tree, err)
	}
	return nil
}
