package ocispec

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const anyAccess = "rwm"

// devices returns the nodes that the OCI runtime makes, and adds the rules of the devices
// cgroup to resources. Everything is forbidden first; the runtime itself allows the few that
// every container has.
func (c *Container) devices(resources *specs.LinuxResources) ([]specs.LinuxDevice, error) {
	all := c.Security.Privileged && !c.ConfineDevices
	resources.Devices = []specs.LinuxDeviceCgroup{{Allow: all, Access: anyAccess}}
	var nodes []specs.LinuxDevice
	for i := range c.Devices {
		d := &c.Devices[i]
		if err := d.validate(); err != nil {
			return nil, err
		}
		if !c.bindsDevice(d) {
			nodes = append(nodes, d.Node)
		}
		if !all {
			resources.Devices = append(resources.Devices, specs.LinuxDeviceCgroup{
				Allow: true, Type: d.Node.Type, Major: &d.Node.Major, Minor: &d.Node.Minor, Access: d.Access,
			})
		}
	}
	return nodes, nil
}

// distinctDevices keeps the first device of each path: one that is asked for stands before the
// host's own of that name in a privileged container.
func distinctDevices(devices []HostDevice) []HostDevice {
	seen := make(map[string]bool, len(devices))
	var out []HostDevice
	for _, d := range devices {
		if p := path.Clean(d.Node.Path); !seen[p] {
			seen[p] = true
			out = append(out, d)
		}
	}
	return out
}

func (d *HostDevice) validate() error {
	if err := checkPath("device", d.Node.Path); err != nil {
		return err
	}
	if err := checkPath("host path of device "+d.Node.Path, d.HostPath); err != nil {
		return err
	}
	if d.Node.Type != "b" && d.Node.Type != "c" {
		return invalidf("device %s of type %q is neither a block nor a character device", d.HostPath, d.Node.Type)
	}
	if d.Access == "" || strings.Trim(d.Access, anyAccess) != "" {
		return invalidf("permissions %q of device %s", d.Access, d.HostPath)
	}
	return nil
}

// bindsDevice tells a device that needs a bind mount of its own. A user namespace cannot make
// nodes, so the OCI runtime binds the host's node instead; it looks for it at the path in the
// container, which is wrong when the client asks for another one.
func (c *Container) bindsDevice(d *HostDevice) bool {
	return c.Mapping != nil && path.Clean(d.HostPath) != path.Clean(d.Node.Path)
}

func (c *Container) deviceBinds() []specs.Mount {
	var binds []specs.Mount
	for i := range c.Devices {
		if d := &c.Devices[i]; c.bindsDevice(d) {
			binds = append(binds, specs.Mount{
				Destination: path.Clean(d.Node.Path), Type: "bind", Source: d.HostPath, Options: []string{"bind", "rprivate"},
			})
		}
	}
	return binds
}
