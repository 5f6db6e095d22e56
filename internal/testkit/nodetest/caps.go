package nodetest

import (
	"testing"

	"github.com/moby/sys/capability"
)

// HasSysResource tells whether the node's daemons have CAP_SYS_RESOURCE, as this process. Without it the kernel lets nobody set the limits of
// a process with other ids, and tells CRIU neither those of another user's processes nor those of a user namespace that
// another user owns.
func HasSysResource(t testing.TB) bool {
	t.Helper()
	caps, err := capability.NewPid2(0)
	if err == nil {
		err = caps.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	return caps.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE)
}
