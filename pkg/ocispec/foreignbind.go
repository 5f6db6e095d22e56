package ocispec

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ParseBind reads a bind mount that somebody else wrote for a specification; false means that the mount is of
// another kind. Options that a client's mount cannot have stay among its options, for Bind to refuse. Whether the
// mount is idmapped is not the writer's to say.
func ParseBind(m specs.Mount) (Mount, bool) {
	has := func(options ...string) bool {
		return slices.ContainsFunc(m.Options, func(o string) bool { return slices.Contains(options, o) })
	}
	if m.Type != "bind" && !has("bind", "rbind") {
		return Mount{}, false
	}
	out := Mount{
		HostPath:          m.Source,
		ContainerPath:     m.Destination,
		Readonly:          has("ro", "rro"),
		RecursiveReadOnly: has("rro"),
	}
	for _, o := range m.Options {
		switch o {
		case "bind", "rbind", "ro", "rro", "rw", "private", "rprivate", "idmap", "ridmap":
		case "slave", "rslave":
			out.Propagation = PropagationHostToContainer
		case "shared", "rshared":
			out.Propagation = PropagationBidirectional
		default:
			out.Options = append(out.Options, o)
		}
	}
	return out, true
}

// Bind makes the mount of a specification out of m, in a pod with this mapping; nil is the host's user
// namespace. An error wraps ErrInvalid or ErrUnsupported.
func Bind(m Mount, mapping *IDMapping, h Host) (specs.Mount, error) {
	c := Container{Mapping: mapping, Host: h}
	return c.bind(&m)
}
