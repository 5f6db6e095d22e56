package selftest

import (
	"fmt"
	"strings"
)

// errnoProcess and errnoPermission are how the kernel refuses a signal; a shell says it alike.
const (
	errnoProcess    = "no such process"
	errnoPermission = "not permitted"
)

func judgePair(s seen) []Check {
	return []Check{s.judgeDisjoint(), s.judgeUnseen(), s.judgeSignal(), s.judgeLayer()}
}

// pairDown is why the two pods cannot be compared, empty when they can.
func (s *seen) pairDown() string {
	for i := range s.pods {
		if why := s.pods[i].mute(); why != "" {
			return why
		}
	}
	return ""
}

func (s *seen) judgeDisjoint() Check {
	const name, want = "ranges-disjoint", "no id in common"
	if why := s.pairDown(); why != "" {
		return skip(name, want, why)
	}
	one, ok1 := mapping(s.pods[0].facts.UIDMap)
	two, ok2 := mapping(s.pods[1].facts.UIDMap)
	if !ok1 || !ok2 {
		return skip(name, want, "a pod has not one range of ids")
	}
	return verdict(name, !one.overlaps(two), fmt.Sprintf("%s and %s", one, two), want,
		"Both pods have the same host ids: what breaks out of one can harm the other. Who gave out the ids, the runtime or kubelet, has given them twice.")
}

// judgeUnseen looks for the processes of each pod among those that the other sees.
func (s *seen) judgeUnseen() Check {
	const name, want = "processes-hidden", "none of the other pod's"
	if why := s.pairDown(); why != "" {
		return skip(name, want, why)
	}
	for i, pod := range s.pods {
		other := strings.TrimPrefix(s.pods[1-i].file, "/")
		for _, process := range pod.facts.Processes {
			if strings.Contains(process, other) {
				return verdict(name, false, fmt.Sprintf("pod %d sees %s", i+1, process), want, "The pods share a PID namespace, perhaps with the host.")
			}
		}
	}
	return Check{Name: name, OK: true, Got: want, Want: want}
}

// judgeSignal wants a refusal for the reason that the process is out of sight or out of reach.
func (s *seen) judgeSignal() Check {
	const name, want = "signal-refused", "no such process, or not permitted"
	if why := s.pairDown(); why != "" {
		return skip(name, want, why)
	}
	first := s.pods[0]
	if first.pidErr != nil {
		return skip(name, want, fmt.Sprintf("the host's id of pod 1's process is unknown: %v", first.pidErr))
	}
	got := strings.ToLower(s.pods[1].facts.Signal.Error)
	if got == "" {
		got = fmt.Sprintf("pod 2 can signal process %d", first.pid)
	}
	return verdict(name, strings.Contains(got, errnoProcess) || strings.Contains(got, errnoPermission), got, want,
		"A process of one pod can reach one of the other.")
}

// judgeLayer looks at the layer that both pods use, as it is on disk.
func (s *seen) judgeLayer() Check {
	const name, want = "layer-on-disk", "0:0"
	if why := s.pods[0].mute(); why != "" {
		return skip(name, want, why)
	}
	got := fmt.Sprintf("%s %s", s.layer.Owner, s.layer.Path)
	return succeed(name, got, s.layerErr, want, "The image's layers on disk cannot be looked at.").
		or(func() Check {
			return verdict(name, s.layer.Owner.String() == want, got, want,
				"The image's layers on disk belong to a pod: the runtime has changed their owners instead of mounting them idmapped, a copy for each pod.")
		})
}
