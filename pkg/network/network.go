package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

var (
	// ErrNotReady says that pods cannot be connected before the node is put right: there is no
	// CNI configuration, it is invalid, or a plugin is missing or says so.
	ErrNotReady = errors.New("pod network is not ready")

	// ErrInvalid says that a pod asks for something malformed. Nothing was changed.
	ErrInvalid = errors.New("invalid pod network")

	// ErrPlugin says that a CNI plugin did not connect a pod, or answered what cannot be used. What it
	// did was undone; another try may go better.
	ErrPlugin = errors.New("CNI plugin did not connect the pod")
)

// IPFamily says which address of a pod with several is its first.
type IPFamily string

// The preferences. The zero value means IPv4; FamilyCNI keeps the order of the plugins.
const (
	FamilyIPv4 IPFamily = "ipv4"
	FamilyIPv6 IPFamily = "ipv6"
	FamilyCNI  IPFamily = "cni"
)

// Options configure a Network.
type Options struct {
	// BinDirs are searched for plugins, in this order.
	BinDirs []string
	// ConfDir holds the CNI configuration: *.conf, *.conflist and *.json.
	ConfDir string
	// MaxConf is the number of configurations, in the order of their file names, that a pod is
	// connected by: to eth0, eth1 and so on. 0 means 1, a negative number all.
	MaxConf int
	// Prefer chooses a pod's first address.
	Prefer IPFamily
}

// Network connects pods. Its methods may be called side by side.
type Network struct {
	opts Options
	cni  *libcni.CNIConfig

	mu     sync.Mutex // also serialises reading the configuration
	loaded *configuration
	seen   fingerprint // of what loaded was read from
}

// New returns a Network. It reads no configuration yet, so none need exist.
func New(opts Options) (*Network, error) {
	if len(opts.BinDirs) == 0 || slices.Contains(opts.BinDirs, "") || opts.ConfDir == "" {
		return nil, errors.New("network: directories of CNI plugins and configuration are required")
	}
	switch opts.Prefer {
	case "":
		opts.Prefer = FamilyIPv4
	case FamilyIPv4, FamilyIPv6, FamilyCNI:
	default:
		return nil, fmt.Errorf("network: unknown IP preference %q", opts.Prefer)
	}
	switch {
	case opts.MaxConf == 0:
		opts.MaxConf = 1
	case opts.MaxConf < 0:
		opts.MaxConf = 0 // go-cni's word for all
	}
	exec := &invoke.DefaultExec{
		RawExec:       &invoke.RawExec{Stderr: os.Stderr},
		PluginDecoder: version.PluginDecoder{},
	}
	return &Network{opts: opts, cni: libcni.NewCNIConfig(opts.BinDirs, exec)}, nil
}

// statusTimeout bounds the plugins that Status runs. kubelet asks every few seconds.
const statusTimeout = 10 * time.Second

// Status reports whether pods can be connected: nil, or an error wrapping ErrNotReady that names
// what is missing and where. Plugins of CNI 1.1 are asked for their own status.
func (n *Network) Status(ctx context.Context) error {
	conf, err := n.configuration()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	for _, network := range conf.networks {
		for _, plugin := range network.list.Plugins {
			if _, err := invoke.FindInPath(plugin.Network.Type, n.opts.BinDirs); err != nil {
				return fmt.Errorf("%w: CNI network %q of %s: plugin %q is in none of %q",
					ErrNotReady, network.list.Name, n.opts.ConfDir, plugin.Network.Type, n.opts.BinDirs)
			}
		}
		if err := n.cni.GetStatusNetworkList(ctx, network.list); err != nil {
			return fmt.Errorf("%w: CNI network %q: %w", ErrNotReady, network.list.Name, err)
		}
	}
	return nil
}
