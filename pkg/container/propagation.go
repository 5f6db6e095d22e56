package container

import (
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// checkPropagation holds that mounts can propagate to or from the volume's source. Bidirectional
// propagation in a user namespace is left to the specification, which refuses it whatever the source.
func checkPropagation(sb sandbox.Record, v ocispec.Mount) error {
	if v.Propagation == ocispec.PropagationPrivate || v.Propagation == ocispec.PropagationBidirectional && sb.Pins.User != "" {
		return nil
	}
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(v.HostPath))
	if err != nil {
		return fmt.Errorf("find the mount of %s: %w", v.HostPath, err)
	}
	return v.CheckSource(holder(above).Optional)
}

// holder returns the mount that is seen at a path, of all mounts at it and above it: the deepest, and
// of those the last, which covers the others.
func holder(above []*mountinfo.Info) mountinfo.Info {
	var out mountinfo.Info
	for _, info := range above {
		if depth(info.Mountpoint) >= depth(out.Mountpoint) {
			out = *info
		}
	}
	return out
}

func depth(path string) int { return strings.Count(strings.TrimSuffix(path, "/"), "/") }
