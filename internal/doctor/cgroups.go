package doctor

import (
	"context"

	"github.com/userns-shim/userns-shim/internal/kernel"
)

func (x *exam) checkCgroups(context.Context) {
	mode := x.Ports.Kernel.CgroupMode()
	switch mode {
	case kernel.CgroupUnavailable:
		x.add("cgroup", Error, "boot with systemd, or mount -t cgroup2 none /sys/fs/cgroup", "no cgroups are mounted at /sys/fs/cgroup")
		return
	case kernel.CgroupUnified:
		x.ok("cgroup", "version 2, driver %s", x.driver())
	default:
		x.add("cgroup", Info, "", "version 1 (%s), driver %s; a kubelet from 1.35 on refuses it unless failCgroupV1: false is set", mode, x.driver())
	}
	_, err := x.stat("/run/systemd/system")
	if x.Node.SystemdCgroup && err != nil {
		x.add("cgroup", Error, "cgroupDriver: cgroupfs in the configuration", "the configuration says cgroupDriver: systemd, and systemd does not run here")
	}
	if x.Node.SystemdCgroup && mode != kernel.CgroupUnified {
		x.add("cgroup", Warning, "boot with systemd.unified_cgroup_hierarchy=1", "the driver systemd with cgroup version 1 is not tested")
	}
}

func (x *exam) driver() string {
	if x.Node.SystemdCgroup {
		return "systemd"
	}
	return "cgroupfs"
}
