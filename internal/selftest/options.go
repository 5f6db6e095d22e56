package selftest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// Options say what to test.
type Options struct {
	// Endpoint is the address of the CRI socket: unix:///path, or a path alone.
	Endpoint string
	// ImageEndpoint is that of the image service; empty means Endpoint.
	ImageEndpoint string
	// RuntimeHandler is the handler to test; empty is the runtime's default.
	RuntimeHandler string
	// CgroupParent is the pods' parent cgroup; empty leaves it to the runtime.
	CgroupParent string
	// Image is one with a shell and the tools of a busybox, to use instead of an own image that
	// the test serves on loopback.
	Image string
	// Program is the static executable that the own image holds; it takes the arguments of inside.Self.
	Program string
	// IDs is where mappings are drawn from, for runtimes that leave the choice to kubelet.
	IDs Extent
	// Host is the view of the node's own /proc and layers.
	Host Host
	// Timeout bounds the test; the clean-up has its own bound.
	Timeout time.Duration
}

// Host shows the node from outside of its pods.
type Host interface {
	// FindProcess returns the pid of the process that has the token among its arguments.
	FindProcess(token string) (int, error)
	// Owner returns the owner of a file below the root directory of a process.
	Owner(pid int, path string) (inside.Owner, error)
	// FindLayerFile returns the owner on disk of an image's file, given the directory where a
	// runtime keeps images. The error wraps ErrNotSeen when the file is not found there.
	FindLayerFile(dir string, file inside.Witness) (LayerFile, error)
	// MappedIDs are the host ids that user namespaces of now have mapped.
	MappedIDs() ([]Extent, error)
}

// LayerFile is a file of an image layer as the host sees it on disk.
type LayerFile struct {
	Path  string
	Owner inside.Owner
}

// ErrNotSeen says that this process cannot see from where it runs what it looked for.
var ErrNotSeen = errors.New("not seen from here")

// complete checks the options and fills in what may be left out.
func (o Options) complete() (Options, error) {
	var err error
	if o.Endpoint, err = address(o.Endpoint); err != nil {
		return o, err
	}
	if o.ImageEndpoint == "" {
		o.ImageEndpoint = o.Endpoint
	}
	if o.ImageEndpoint, err = address(o.ImageEndpoint); err != nil {
		return o, err
	}
	switch {
	case o.IDs.Length < idsPerPod*2:
		return o, fmt.Errorf("%d ids are too few for two pods of %d", o.IDs.Length, idsPerPod)
	case o.IDs.Start < idsPerPod || o.IDs.end() >= 1<<32-1:
		return o, fmt.Errorf("ids %s: pods' ids are within 65536-4294967294", o.IDs)
	case o.Timeout <= 0:
		return o, fmt.Errorf("timeout %s is not positive", o.Timeout)
	}
	return o, nil
}

func address(endpoint string) (string, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("endpoint %q is no unix:///path", endpoint)
	}
	return "unix://" + path, nil
}
