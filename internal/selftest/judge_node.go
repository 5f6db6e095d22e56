package selftest

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func judgeNode(s seen) []Check {
	version := strings.TrimSpace(s.version.GetRuntimeName() + " " + s.version.GetRuntimeVersion())
	return []Check{
		succeed("version", version, s.versionErr, "an answer",
			"No CRI runtime answers at the endpoint. Is the runtime running, is --endpoint its socket, and may you open it (run as root)?"),
		s.judgeCondition("runtime-ready", runtimeapi.RuntimeReady,
			"The runtime is not ready for pods. With userns-shim or containerd's CRI plugin: is containerd running?"),
		s.judgeCondition("network-ready", runtimeapi.NetworkReady,
			"Pods get no network. Install the network plugin, whose configuration appears in /etc/cni/net.d."),
		s.judgeHandler(),
		s.judgeImage(),
	}
}

func (s *seen) judgeCondition(name, kind, detail string) Check {
	want := kind + "=true"
	if s.status == nil && s.statusErr == nil {
		return skip(name, want, "the runtime does not answer")
	}
	if s.statusErr != nil {
		return verdict(name, false, s.statusErr.Error(), want, "The runtime does not tell its status. Its log says why.")
	}
	for _, c := range s.status.GetStatus().GetConditions() {
		if c.GetType() != kind {
			continue
		}
		got := fmt.Sprintf("%s=%t", kind, c.GetStatus())
		if !c.GetStatus() {
			got = fmt.Sprintf("%s (%s: %s)", got, c.GetReason(), c.GetMessage())
		}
		return verdict(name, c.GetStatus(), got, want, detail)
	}
	return verdict(name, false, "no such condition", want, detail)
}

func (s *seen) judgeHandler() Check {
	const name = "handler-userns"
	want := fmt.Sprintf("runtime handler %q with the feature UserNamespaces", s.handler)
	if s.status == nil {
		return skip(name, want, "the runtime does not tell its status")
	}
	var names []string
	for _, h := range s.status.GetRuntimeHandlers() {
		if h.GetName() == s.handler {
			got := fmt.Sprintf("runtime handler %q without the feature UserNamespaces", s.handler)
			if h.GetFeatures().GetUserNamespaces() {
				got = want
			}
			return expect(name, got, want, "kubelet refuses pods with hostUsers: false on this handler. User namespaces need "+
				"Linux 6.3, runc 1.2 or crun 1.9, and a snapshotter whose file system can be mounted idmapped.")
		}
		names = append(names, fmt.Sprintf("%q", h.GetName()))
	}
	return verdict(name, false, "handlers "+strings.Join(names, " "), want,
		"The runtime does not list the handler. Either --runtime-handler misspells it, or the runtime is too old to tell features (containerd 2.0, CRI-O 1.31).")
}

func (s *seen) judgeImage() Check {
	const name = "image"
	if s.status == nil {
		return skip(name, "an image to run", "the runtime does not tell its status")
	}
	return succeed(name, s.image, s.imageErr, "an image to run",
		"The runtime cannot pull the test's image. Where it takes no plain HTTP from a registry on 127.0.0.1, as CRI-O by default, "+
			"or where the test and the runtime are in different network namespaces, name an image that it can have, with a busybox: --image REF.")
}
