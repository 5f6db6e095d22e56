package container

import (
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestHolderIsTheMountThatIsSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		above []*mountinfo.Info
		want  string
	}{
		"root":                  {[]*mountinfo.Info{{Mountpoint: "/", Source: "a"}}, "a"},
		"deepest":               {[]*mountinfo.Info{{Mountpoint: "/", Source: "a"}, {Mountpoint: "/mnt/x", Source: "b"}, {Mountpoint: "/mnt", Source: "c"}}, "b"},
		"covered at one place":  {[]*mountinfo.Info{{Mountpoint: "/", Source: "a"}, {Mountpoint: "/mnt", Source: "b"}, {Mountpoint: "/mnt", Source: "c"}}, "c"},
		"directory of the root": {[]*mountinfo.Info{{Mountpoint: "/", Source: "a"}, {Mountpoint: "/m", Source: "b"}}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := holder(tc.above); got.Source != tc.want {
				t.Errorf("got %s, want %s", got.Source, tc.want)
			}
		})
	}
}
