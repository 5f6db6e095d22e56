package labnode

import (
	"fmt"

	"github.com/moby/sys/capability"
)

// canLowerOOMScore tells whether this process, and so the daemons that it starts, may lower an
// oom_score_adj; some sandboxed machines lack CAP_SYS_RESOURCE even for root.
func canLowerOOMScore() (bool, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	if err := caps.Load(); err != nil {
		return false, fmt.Errorf("load own capabilities: %w", err)
	}
	return caps.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE), nil
}
