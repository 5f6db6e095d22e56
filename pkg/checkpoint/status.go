package checkpoint

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
)

// Status is what checkpointctl shows of a container's life. Times are in nanoseconds since 1970.
type Status = metadata.ContainerdStatus

// WriteStatus writes it into a checkpoint's directory, in the file by which checkpointctl knows
// containers of containerd.
func WriteStatus(dir string, s Status) error {
	if _, err := metadata.WriteJSONFile(s, dir, metadata.StatusFile); err != nil {
		return fmt.Errorf("write status of checkpoint: %w", err)
	}
	return nil
}

// CopyLog copies the container's log into a checkpoint's directory, as far as it has been written.
func CopyLog(dir, log string) error {
	from, err := os.Open(log)
	if err != nil {
		return fmt.Errorf("copy log into checkpoint: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, LogFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copy log into checkpoint: %w", err)
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("copy log into checkpoint: %w", err)
	}
	return to.Close()
}
