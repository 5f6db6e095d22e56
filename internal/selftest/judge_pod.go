package selftest

import (
	"fmt"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// mapping is the one range of a map that is as it should be, from container id 0 and of 65,536 ids.
func mapping(idMap string) (Extent, bool) {
	var first, length uint64
	var host uint32
	if n, err := fmt.Sscanf(idMap, "%d %d %d", &first, &host, &length); n != 3 || err != nil {
		return Extent{}, false
	}
	e := Extent{Start: host, Length: length}
	return e, idMap == wholeMap(e) && e.Length == idsPerPod
}

func wholeMap(e Extent) string { return fmt.Sprintf("0 %d %d", e.Start, e.Length) }

// judgement is one pod's: a check is skipped where what it judges could not be seen.
type judgement struct {
	podSeen
	number int
	ids    Extent // of uid_map, when ok
	mapped bool
}

// check is a check before it is known whether it can be made.
type check struct {
	name string
	want string
	make func(name, want string) Check
}

func judgePod(number int, pod podSeen) []Check {
	j := judgement{podSeen: pod, number: number}
	j.ids, j.mapped = mapping(pod.facts.UIDMap)
	checks := []Check{j.runs(), j.reported()}
	for _, c := range j.fromInside() {
		name := fmt.Sprintf("pod%d-%s", number, c.name)
		switch {
		case pod.down() != "":
			checks = append(checks, skip(name, c.want, pod.down()))
		case pod.factsErr != nil:
			checks = append(checks, verdict(name, false, pod.factsErr.Error(), c.want,
				"The test cannot look around in the container. With --image, does the image have sh and the tools of a busybox?"))
		default:
			checks = append(checks, c.make(name, c.want))
		}
	}
	return checks
}

func (j *judgement) runs() Check {
	name, want := fmt.Sprintf("pod%d-runs", j.number), "a running container"
	if j.absent != "" {
		return skip(name, want, j.absent)
	}
	got := "with ids that the runtime chose"
	if j.drawn != nil {
		got = fmt.Sprintf("with ids that the test chose, as kubelet does; without: %v", j.refused)
	}
	return succeed(name, got, j.err, want, "The runtime cannot run a pod with hostUsers: false. Its log may say more.")
}

// reported compares what the runtime says about the pod with what the kernel does.
func (j *judgement) reported() Check {
	name, want := fmt.Sprintf("pod%d-reported", j.number), "the mapping of uid_map"
	if j.down() != "" {
		return skip(name, want, j.down())
	}
	if j.factsErr == nil {
		want = fmt.Sprintf("mode POD, uids %s, gids %s", j.facts.UIDMap, j.facts.GIDMap)
	}
	users := j.status.GetLinux().GetNamespaces().GetOptions().GetUsernsOptions()
	got := fmt.Sprintf("mode %s, uids %s, gids %s", users.GetMode(), mapText(users.GetUids()), mapText(users.GetGids()))
	if j.statusErr != nil {
		got = j.statusErr.Error()
	}
	return expect(name, got, want, "PodSandboxStatus does not report the mapping that the pod has. Tools that look up a pod by a host id go by it.")
}

func mapText(ids []*runtimeapi.IDMapping) string {
	var lines []string
	for _, m := range ids {
		lines = append(lines, fmt.Sprintf("%d %d %d", m.GetContainerId(), m.GetHostId(), m.GetLength()))
	}
	return strings.Join(lines, "; ")
}

func (j *judgement) fromInside() []check {
	root := inside.Owner{}.String()
	const shared = "The pod has not the ids that it should have. In the host's user namespace its root is the node's root; " +
		"with ids below 65536 it shares them with the node's users."
	return []check{
		{"uid-map", "0 R 65536", func(name, want string) Check { return j.judgeMap(name, j.facts.UIDMap, want, shared) }},
		{"gid-map", "0 R 65536", func(name, want string) Check { return j.judgeMap(name, j.facts.GIDMap, want, shared) }},
		{"setgroups", "allow", func(name, want string) Check {
			return expect(name, j.facts.SetGroups, want, "Programs that drop privileges, such as web servers, end with EPERM in this pod.")
		}},
		{"id", root, func(name, want string) Check {
			return expect(name, j.facts.ID.String(), want, "The container's user is not the image's: root.")
		}},
		{"root-owner", root, func(name, want string) Check {
			return expect(name, j.facts.Root.String(), want, "The root directory belongs to somebody else, 65534 is nobody of the pod: the root file system is not mounted idmapped.")
		}},
		{"image-owner", root, func(name, want string) Check {
			return expect(name, j.facts.Witness.Owner.String(), want, "The image's files belong to somebody else, 65534 is nobody of the pod: the layers are not mounted idmapped.")
		}},
		{"file-inside", root, j.judgeFile},
		{"file-on-host", "R:R", j.judgeFileOnHost},
		{"hostname", "done", j.judgeHostname},
		{"tmpfs", "done", func(name, want string) Check {
			return attempted(name, j.facts.Tmpfs.Error, want, "CAP_SYS_ADMIN in the pod does not let it mount a tmpfs. An AppArmor or SELinux policy may forbid it.")
		}},
		{"network", "an interface and an address", j.judgeNetwork},
	}
}

func (j *judgement) judgeMap(name, got, want, detail string) Check {
	e, ok := mapping(got)
	return verdict(name, ok && e.Start >= idsPerPod, got, want, detail)
}

func (j *judgement) judgeFile(name, want string) Check {
	const detail = "The container's root cannot make a file of its own in its root directory."
	if j.facts.Made.Error != "" {
		return verdict(name, false, j.facts.Made.Error, want, detail)
	}
	return expect(name, j.facts.Made.Value.String(), want, detail)
}

func (j *judgement) judgeFileOnHost(name, want string) Check {
	if !j.mapped || j.facts.Made.Error != "" {
		return skip(name, want, "there is no range or no file to compare with")
	}
	return succeed(name, "", j.madeErr, want, "The host cannot see the file that the container made.").
		or(func() Check {
			return expect(name, j.made.String(), inside.Owner{UID: j.ids.Start, GID: j.ids.Start}.String(),
				"A file that the container's root made belongs on the host to somebody else than the pod's first id.")
		})
}

// or goes on to the next check when c passed.
func (c Check) or(next func() Check) Check {
	if c.OK {
		return next()
	}
	return c
}

func attempted(name, failure, want, detail string) Check {
	if failure != "" {
		return verdict(name, false, failure, want, detail)
	}
	return Check{Name: name, OK: true, Got: want, Want: want}
}

func (j *judgement) judgeHostname(name, want string) Check {
	if j.hostNetwork {
		return skip(name, want, "a hostNetwork pod has the node's host name")
	}
	return attempted(name, j.facts.Hostname.Error, want,
		"CAP_SYS_ADMIN in the pod does not let it set its host name: its UTS namespace does not belong to its user namespace.")
}

func (j *judgement) judgeNetwork(name, want string) Check {
	if j.hostNetwork {
		return skip(name, want, "the node has no pod network: the pods use the node's")
	}
	others := slices.DeleteFunc(slices.Clone(j.facts.Interfaces), func(s string) bool { return s == "lo" })
	address := j.status.GetNetwork().GetIp()
	got := fmt.Sprintf("interfaces %q, address %q", j.facts.Interfaces, address)
	if len(others) > 0 && address != "" {
		got = strings.Join(others, " ") + " " + address
	}
	return verdict(name, len(others) > 0 && address != "", got, want,
		"The pod is without a network though the runtime says that there is one. The log of the network plugin may say why.")
}
