package e2ekubelet

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestShareProcessNamespace(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
shareProcessNamespace: true
containers:
- {name: main, image: IMAGE, command: [sleep, '98765']}
- {name: second, image: IMAGE, command: [sleep, '43210']}
`)
		p.ready(t)
		eventually(t, "main sees both", func() error { // a container that was started may be runc still
			all := p.sh(t, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
			if !strings.Contains(all, "sleep 98765") || !strings.Contains(all, "sleep 43210") {
				return errors.New(all)
			}
			return nil
		})
		if got := p.sh(t, "cat /proc/1/comm"); strings.HasPrefix(got, "sleep") {
			t.Errorf("process 1 is %q, want the pod's init", got)
		}
		// A signal to the other container's process, and its end as kubelet sees it.
		p.sh(t, "kill -9 $(ps | awk '/sleep 4321[0]/ {print $1}')")
		p.awaitRestart(t, "second")
	})
}

func TestHostNetwork(t *testing.T) {
	n := parallelNode(t)
	p := n.run(t, true, `
hostNetwork: true
containers:
- {name: main, image: IMAGE, command: [sleep, infinity]}
`)
	p.ready(t)
	host, err := os.Readlink(n.World.ProcDir() + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.sh(t, "readlink /proc/self/ns/net"); got != host {
		t.Errorf("the pod's network is %s, the node's %s", got, host)
	}
	if got := p.sh(t, "ip addr show lab0 | grep -c 'inet '"); got != "1" {
		t.Errorf("the pod sees %s addresses of the node's bridge", got)
	}
}

func TestHostPIDAndIPC(t *testing.T) {
	n := parallelNode(t)
	p := n.run(t, true, `
hostPID: true
hostIPC: true
containers:
- {name: main, image: IMAGE, command: [sleep, infinity]}
`)
	p.ready(t)
	for _, kind := range []string{"pid", "ipc"} {
		host, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.sh(t, "readlink /proc/self/ns/"+kind); got != host {
			t.Errorf("the %s namespace is %s, the host's %s", kind, got, host)
		}
	}
}

// TestProcMountUnmasked lets a pod with a user namespace see /proc as it is, and mount another one.
func TestProcMountUnmasked(t *testing.T) {
	n := parallelNode(t)
	p := n.run(t, false, `
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], securityContext: {procMount: Unmasked, capabilities: {add: [SYS_ADMIN]}}}
- {name: masked, image: IMAGE, command: [sleep, infinity]}
`)
	p.ready(t)
	masked := p.exec(t, "masked", "grep", "-c", " /proc/", "/proc/mounts")
	if masked == "0" {
		t.Error("nothing of /proc is masked by default")
	}
	if got := p.sh(t, "grep -c ' /proc/' /proc/mounts || true"); got != "0" {
		t.Errorf("%s mounts cover parts of an unmasked /proc", got)
	}
	if got := p.sh(t, "unshare -m -p -f sh -c 'mkdir -p /tmp/proc && mount -t proc proc /tmp/proc && ls -d /tmp/proc/1'"); got != "/tmp/proc/1" {
		t.Errorf("mounting another /proc: %q", got)
	}
}

func TestSysctlsAndHostAliases(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
hostname: named
subdomain: sub
hostAliases: [{ip: 192.0.2.7, hostnames: [seven]}]
securityContext: {sysctls: [{name: net.ipv4.ping_group_range, value: "0 1000"}, {name: kernel.shm_rmid_forced, value: "1"}], supplementalGroups: [4000]}
dnsPolicy: None
dnsConfig: {nameservers: [192.0.2.53], searches: [example.test]}
containers:
- {name: main, image: IMAGE, command: [sleep, infinity]}
`)
		p.ready(t)
		if got := p.sh(t, "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shm_rmid_forced; hostname"); strings.Join(strings.Fields(got), " ") != "0 1000 1 named" {
			t.Errorf("sysctls and hostname: %q", got)
		}
		if got := p.sh(t, "grep seven /etc/hosts; cat /etc/resolv.conf; id -G"); strings.Join(strings.Fields(got), " ") != "192.0.2.7 seven search example.test nameserver 192.0.2.53 0 4000" {
			t.Errorf("hosts, resolv.conf and groups: %q", got)
		}
	})
}
