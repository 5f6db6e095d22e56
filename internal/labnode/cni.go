package labnode

import (
	"fmt"
	"os"
	"path/filepath"
)

// The pod network of a lab node. Every node has a network namespace of its own, so all use the same.
const (
	bridgeName  = "lab0"
	networkName = "lab"
	podSubnet   = "10.88.0.0/16"
)

// network is the CNI configuration of a node.
type network struct {
	confDir string
	dataDir string // of host-local: one file for each address in use
}

func newNetwork(dir string) network {
	return network{confDir: filepath.Join(dir, "net.d"), dataDir: filepath.Join(dir, "net-data")}
}

// write makes the configuration directory and, unless empty is wanted, the pod network in it.
func (n network) write(empty bool) error {
	if err := os.MkdirAll(n.confDir, 0o755); err != nil {
		return fmt.Errorf("make CNI configuration directory: %w", err)
	}
	if empty {
		return nil
	}
	conf := fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": %q,
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"}
  ]
}
`, networkName, bridgeName, n.dataDir, podSubnet)
	if err := os.WriteFile(filepath.Join(n.confDir, "10-lab.conflist"), []byte(conf), 0o644); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	return nil
}

// addressDir is where host-local keeps its files.
func (n network) addressDir() string { return filepath.Join(n.dataDir, networkName) }
