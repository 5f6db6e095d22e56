package doctor

import (
	"context"
	"fmt"
)

// sysctl is a limit, with the least that is well.
type sysctl struct {
	name  string
	least int64
	// below is what a smaller one brings about.
	below    string
	severity Severity
	advice   int64 // what to set
}

// A node of 250 pods, each with a few containers, has room within these.
var sysctls = []sysctl{
	{"user.max_user_namespaces", 1, "no pod gets a user namespace", Error, 65536},
	{"user.max_user_namespaces", 1024, "each pod needs one", Warning, 65536},
	{"user.max_net_namespaces", 1024, "each pod needs one", Warning, 65536},
	{"user.max_ipc_namespaces", 1024, "each pod needs one", Warning, 65536},
	{"user.max_uts_namespaces", 1024, "each pod needs one", Warning, 65536},
	{"user.max_mnt_namespaces", 1024, "each container needs one", Warning, 65536},
	{"user.max_pid_namespaces", 1024, "each container needs one", Warning, 65536},
	{"user.max_cgroup_namespaces", 1024, "each container needs one", Warning, 65536},
	{"fs.inotify.max_user_instances", 256, "kubelet, agents and all pods with hostUsers: true share it as root; pods with user namespaces have it for themselves", Warning, 8192},
	{"fs.inotify.max_user_watches", 65536, "kubelet, agents and all pods with hostUsers: true share it as root", Warning, 524288},
	{"kernel.pid_max", 65536, "all pods share it", Warning, 4194304},
	{"kernel.threads-max", 32768, "all pods share it", Warning, 1048576},
	{"kernel.keys.root_maxkeys", 1000, "the OCI runtime makes a session keyring for each container as root", Warning, 1000000},
	{"net.ipv4.ip_forward", 1, "most pod networks do not get beyond the node", Warning, 1},
}

func (x *exam) checkSysctls(context.Context) {
	told, read := map[string]bool{}, 0
	for _, s := range sysctls {
		value, there := x.sysctl(s.name)
		if !there {
			continue
		}
		read++
		if value >= s.least || told[s.name] {
			continue
		}
		told[s.name] = true
		x.add("sysctl", s.severity, fmt.Sprintf("echo %s=%d >> /etc/sysctl.d/90-userns-shim.conf && sysctl --system", s.name, s.advice), "%s is %d: %s", s.name, value, s.below)
	}
	switch {
	case read == 0:
		x.add("sysctl", Unknown, "mount -t proc proc /proc", "no sysctl can be read")
	case len(told) == 0:
		x.ok("sysctl", "the limits of namespaces, inotify, processes and keys are high enough")
	}
	for _, restriction := range []struct {
		name string
		on   int64
	}{{"kernel.unprivileged_userns_clone", 0}, {"kernel.apparmor_restrict_unprivileged_userns", 1}} {
		if value, there := x.sysctl(restriction.name); there && value == restriction.on {
			x.add("sysctl", Info, "", "%s is %d: processes in pods make no user namespaces of their own (rootless Podman, browsers' sandboxes); pods' own are not concerned", restriction.name, value)
		}
	}
}
