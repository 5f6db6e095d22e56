package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func TestNspawn(t *testing.T) {
	name := func(r idpool.Range) string { return fmt.Sprintf("run/systemd/nspawn-uid/%d", r.Start) }
	root := tree(t, map[string]string{name(unit(1)): "", name(unit(2)): "", "run/systemd/nspawn-uid/524288": "", "run/systemd/nspawn-uid/x": ""})
	held, err := os.OpenFile(filepath.Join(root, name(unit(1))), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	wantOwners(t, look(t, Nspawn(root), &fakeLedger{}), Owner{Kind: KindNspawn, Range: unit(1), Who: "systemd-nspawn"})
}
