// Package packaging holds what is on a node beside the programs: the systemd unit and the script that gives kubelet its host
// ids. Packages take the files as they are, and userns-shim install from here. It does nothing with them.
package packaging

import (
	"bytes"
	_ "embed" // the files
)

//go:embed userns-shim.service
var serviceFile []byte

// KubeletIDs is a script for sh that gives the user kubelet its host ids.
//
//go:embed kubelet-ids
var KubeletIDs []byte

// ServiceFile is the unit of a userns-shim whose program is in binDir.
func ServiceFile(binDir string) []byte {
	return bytes.ReplaceAll(serviceFile, []byte("/usr/bin/userns-shim"), []byte(binDir+"/userns-shim"))
}
