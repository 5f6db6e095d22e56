package state

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// checkTimeout is how long Check waits for another process: not longer than for one that opens and closes the file.
const checkTimeout = 100 * time.Millisecond

// Check reads the whole database at path and changes nothing. Errors: ErrLocked when a daemon has it open, ErrDamaged, and those
// of the file system, fs.ErrNotExist among them.
func Check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	err = lock(f, checkTimeout)
	if err == nil {
		err = inspect(f)
	}
	return errors.Join(err, f.Close())
}
