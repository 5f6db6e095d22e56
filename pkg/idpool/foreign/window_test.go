package foreign

import (
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func TestOverlaps(t *testing.T) {
	if got := Overlaps(append(idpool.DefaultExtents(), idpool.DefaultKubeletExtents()...)); len(got) != 0 {
		t.Errorf("the default extents meet %+v", got)
	}
	if got := Overlaps([]idpool.Range{{Start: 524288, Length: idpool.Unit}}); len(got) != 3 {
		t.Errorf("an extent at 524288 meets %+v, want useradd, SSSD and systemd", got)
	}
	if got := Overlaps([]idpool.Range{{Start: 0x7FFE0000, Length: idpool.Unit}}); len(got) != 1 || !got[0].Window.Never {
		t.Errorf("an extent on systemd's foreign ids meets %+v", got)
	}
}
