package network

import (
	"fmt"

	"github.com/containernetworking/cni/libcni"
)

// Attached returns what CNI was told of a sandbox's pod when it was connected: its name, namespace and UID, and nothing else. It is
// read from libcni's cache, which outlives reboots; ok is false where that knows nothing of the sandbox.
func Attached(sandboxID string) (pod Pod, ok bool, err error) {
	cached, err := libcni.NewCNIConfig(nil, nil).GetCachedAttachments(sandboxID)
	if err != nil {
		return Pod{}, false, fmt.Errorf("read CNI attachments of sandbox %s: %w", sandboxID, err)
	}
	pod.ID = sandboxID
	fields := map[string]*string{argNamespace: &pod.Namespace, argName: &pod.Name, argUID: &pod.UID}
	for _, a := range cached {
		for _, arg := range a.CniArgs {
			if field := fields[arg[0]]; field != nil {
				*field = arg[1]
			}
		}
	}
	return pod, pod.Name != "", nil
}
