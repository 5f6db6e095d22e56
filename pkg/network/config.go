package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
)

// ifPrefix and its first number name a pod's first interface, as kubelet and CNI daemons expect.
const ifPrefix = "eth"

// configuration is a CNI configuration as read at one moment. It is never changed.
type configuration struct {
	cni      gocni.CNI
	networks []attachable
}

// attachable is one network that pods are connected to, and the name of their interface in it.
type attachable struct {
	list   *libcni.NetworkConfigList
	ifName string
}

// fingerprint tells two states of a configuration directory apart without reading its files.
// Empty means that the state must be read again.
type fingerprint string

// configuration returns the current configuration, or an error wrapping ErrNotReady.
func (n *Network) configuration() (*configuration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	seen, err := fingerprintOf(n.opts.ConfDir, time.Now())
	if err != nil {
		n.loaded, n.seen = nil, ""
		return nil, fmt.Errorf("%w: CNI configuration directory: %w", ErrNotReady, err)
	}
	if n.loaded != nil && seen != "" && seen == n.seen {
		return n.loaded, nil
	}
	n.loaded, n.seen = nil, seen
	loaded, err := n.load()
	if err != nil {
		return nil, err
	}
	n.loaded = loaded
	return loaded, nil
}

// load reads the configuration into an instance of go-cni of its own: pods that are being
// connected meanwhile keep theirs.
func (n *Network) load() (*configuration, error) {
	cni, err := gocni.New(
		gocni.WithPluginDir(n.opts.BinDirs),
		gocni.WithPluginConfDir(n.opts.ConfDir),
		gocni.WithPluginMaxConfNum(n.opts.MaxConf),
		gocni.WithInterfacePrefix(ifPrefix),
	)
	if err != nil {
		return nil, fmt.Errorf("set up CNI: %w", err)
	}
	if err := cni.Load(gocni.WithDefaultConf); err != nil {
		return nil, fmt.Errorf("%w: read CNI configuration (*.conf, *.conflist, *.json) in %s: %w", ErrNotReady, n.opts.ConfDir, err)
	}
	conf := &configuration{cni: cni}
	for _, network := range cni.GetConfig().Networks {
		list := &libcni.NetworkConfigList{
			Name:       network.Config.Name,
			CNIVersion: network.Config.CNIVersion,
			Bytes:      []byte(network.Config.Source),
		}
		for _, plugin := range network.Config.Plugins {
			list.Plugins = append(list.Plugins, &libcni.PluginConfig{Network: plugin.Network, Bytes: []byte(plugin.Source)})
		}
		conf.networks = append(conf.networks, attachable{list: list, ifName: network.IFName})
	}
	return conf, nil
}

// racy is how old a file must be for its time to prove that it was not changed again since. It
// covers the granularity of time stamps of all common filesystems.
const racy = 2 * time.Second

// fingerprintOf sums up the files in dir, and in the directories of single networks below it.
func fingerprintOf(dir string, now time.Time) (fingerprint, error) {
	var sum strings.Builder
	fresh := false
	add := func(path string, entry fs.DirEntry) error {
		info, err := os.Stat(path) // the target of a symbolic link is what is read
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		fresh = fresh || now.Sub(info.ModTime()) < racy
		fmt.Fprintf(&sum, "%q %d %d %s\n", path, info.Size(), info.ModTime().UnixNano(), entry.Type())
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if err := add(path, entry); err != nil {
			return "", err
		}
		if !entry.IsDir() {
			continue
		}
		below, err := os.ReadDir(path)
		if err != nil {
			return "", err
		}
		for _, entry := range below {
			if err := add(filepath.Join(path, entry.Name()), entry); err != nil {
				return "", err
			}
		}
	}
	if fresh {
		return "", nil
	}
	return fingerprint(sum.String()), nil
}
