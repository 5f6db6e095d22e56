package ns

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// NetNSDir is where CNI daemons and `ip netns` look for network namespaces.
const NetNSDir = "/var/run/netns"

// The names of the pins in a sandbox's directory.
const (
	userPin = "user"
	ipcPin  = "ipc"
	utsPin  = "uts"
)

// NetNSPath returns the path of a sandbox's network namespace, cni-<uuid> below NetNSDir. It
// depends on the id alone. The UUID of an id of at least 32 lower-case hexadecimal digits starts
// with these digits, so that a person who sees one finds the other.
func NetNSPath(sandboxID string) string {
	const digits = "0123456789abcdef"
	h := sandboxID
	if len(h) < 32 || strings.Trim(h, digits) != "" {
		sum := sha256.Sum256([]byte(sandboxID))
		h = hex.EncodeToString(sum[:])
	}
	uuid := strings.Join([]string{h[0:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-")
	return filepath.Join(NetNSDir, "cni-"+uuid)
}
