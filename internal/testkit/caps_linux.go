package testkit

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hasSysAdmin tells whether this thread has CAP_SYS_ADMIN in effect.
func hasSysAdmin() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // of 32 capabilities each
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0, nil
}
