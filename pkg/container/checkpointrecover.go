package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"
)

// recoverCheckpoints thaws containers whose checkpoint did not come to its end, and removes what is left of
// it; and unpacked checkpoints of containers that were never made. A shim thaws nothing while CRIU still writes:
// an error that wraps errdefs.ErrUnavailable says that this has not ended yet.
func (m *Manager) recoverCheckpoints(ctx context.Context) error {
	begun, err := names(filepath.Join(m.opts.RootDir, "checkpoints"))
	errs := []error{err}
	for _, id := range begun {
		if err := m.thaw(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("recover checkpoint: %w: %w", errdefs.ErrUnavailable, err))
			continue
		}
		klog.FromContext(ctx).Info("Checkpoint was not finished; its container runs on", "container", id)
		errs = append(errs, m.removeCheckpoint(id))
	}
	unpacked, err := names(filepath.Join(m.opts.RootDir, "restores"))
	errs = append(errs, err)
	for _, id := range unpacked {
		if !m.table.Has(id) {
			errs = append(errs, m.removeRestore(id))
		}
	}
	return errors.Join(errs...)
}

// names are those in a directory; one that is not there has none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, err
}
