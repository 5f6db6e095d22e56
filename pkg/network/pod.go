package network

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	gocni "github.com/containerd/go-cni"
)

// annotationsCapability is the name by which plugins ask containerd for a pod's annotations.
const annotationsCapability = "io.kubernetes.cri.pod-annotations"

// PortMapping forwards a port of the host to the pod. Protocol is "tcp", "udp" or "sctp". A
// HostPort of 0 asks for nothing; an empty HostIP means all addresses of the host.
type PortMapping struct {
	Protocol      string
	ContainerPort int32
	HostPort      int32
	HostIP        string
}

// DNS is handed to plugins that ask for it.
type DNS struct{ Servers, Searches, Options []string }

// Pod is what plugins learn of a pod sandbox.
type Pod struct {
	ID        string // of the sandbox
	Name      string
	Namespace string
	UID       string
	// NetNSPath is where the pod's network namespace is pinned.
	NetNSPath    string
	PortMappings []PortMapping
	DNS          DNS
	Annotations  map[string]string
	CgroupParent string
}

// The CNI arguments that name a pod.
const (
	argNamespace = "K8S_POD_NAMESPACE"
	argName      = "K8S_POD_NAME"
	argUID       = "K8S_POD_UID"
)

// args are the pod's CNI_ARGS.
func (p Pod) args() map[string]string {
	return map[string]string{
		"IgnoreUnknown":              "1",
		argNamespace:                 p.Namespace,
		argName:                      p.Name,
		"K8S_POD_INFRA_CONTAINER_ID": p.ID,
		argUID:                       p.UID,
	}
}

// validate refuses what would end up in another argument than meant.
func (p Pod) validate() error {
	if p.ID == "" {
		return fmt.Errorf("%w: no sandbox id", ErrInvalid)
	}
	args := p.args()
	for _, key := range slices.Sorted(maps.Keys(args)) {
		if strings.ContainsAny(args[key], ";=\x00") {
			return fmt.Errorf("%w: CNI argument %s=%q", ErrInvalid, key, args[key])
		}
	}
	return nil
}

// options are the arguments and capabilities of the pod for go-cni. libcni hands a plugin only
// those capabilities that its configuration asks for.
func (p Pod) options() ([]gocni.NamespaceOpts, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	bandwidth, err := bandwidthOf(p.Annotations)
	if err != nil {
		return nil, err
	}
	opts := []gocni.NamespaceOpts{
		gocni.WithLabels(p.args()),
		gocni.WithCapability(annotationsCapability, p.Annotations),
	}
	if ports := p.hostPorts(); len(ports) > 0 {
		opts = append(opts, gocni.WithCapabilityPortMap(ports))
	}
	if bandwidth != nil {
		opts = append(opts, gocni.WithCapabilityBandWidth(*bandwidth))
	}
	if len(p.DNS.Servers)+len(p.DNS.Searches)+len(p.DNS.Options) > 0 {
		opts = append(opts, gocni.WithCapabilityDNS(gocni.DNS(p.DNS)))
	}
	if p.CgroupParent != "" {
		opts = append(opts, gocni.WithCapabilityCgroupPath(p.CgroupParent))
	}
	return opts, nil
}

func (p Pod) hostPorts() []gocni.PortMapping {
	var ports []gocni.PortMapping
	for _, m := range p.PortMappings {
		if m.HostPort > 0 {
			ports = append(ports, gocni.PortMapping{
				HostPort: m.HostPort, ContainerPort: m.ContainerPort,
				Protocol: strings.ToLower(m.Protocol), HostIP: m.HostIP,
			})
		}
	}
	return ports
}
