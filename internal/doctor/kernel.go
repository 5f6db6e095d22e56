package doctor

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

// leastKernel is the first in which tmpfs can be mounted idmapped, and with it each pod's service account token.
var leastKernel = version.MajorMinor(6, 3)

// optionalFeatures are those without which all works, if more slowly.
var optionalFeatures = map[string]string{
	"overlay over detached layers": "each root filesystem takes a millisecond more to mount",
	"process file descriptors":     "the exit code of a container that ends while containerd is down is lost",
}

func (x *exam) checkKernel(context.Context) {
	release, err := x.read("/proc/sys/kernel/osrelease")
	if err != nil {
		x.add("kernel", Unknown, "mount -t proc proc /proc", "the kernel's version cannot be read: %v", err)
	} else if v, err := version.ParseGeneric(release); err == nil && v.LessThan(leastKernel) {
		x.add("kernel", Warning, "boot Linux 6.3 or newer", "Linux %s: user namespaces for pods need 6.3, unless a distribution brought them to an older one", release)
	} else {
		x.ok("kernel", "Linux %s", release)
	}
	for _, f := range x.Ports.Kernel.Features() {
		lost, optional := optionalFeatures[f.Name]
		switch {
		case f.Err == nil:
			x.ok("kernel", "%s", f.Name)
		case !errors.Is(f.Err, kernel.ErrNotSupported):
			x.add("kernel", Unknown, "run doctor as root on the node itself", "%s: %v", f.Name, f.Err)
		case optional:
			x.add("kernel", Info, "", "no %s (needs %s): %s", f.Name, f.Needs, lost)
		default:
			x.add("kernel", Error, "boot a kernel with "+f.Needs, "%v", f.Err)
		}
	}
}
