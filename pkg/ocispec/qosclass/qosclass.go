// Package qosclass turns the block I/O and RDT (cache and memory bandwidth) classes that annotations of
// pods and containers name into settings of a specification. The classes are the operator's, in
// configuration files of goresctrl, which keeps them for the whole process: make one Classes only.
package qosclass

import (
	"errors"
	"fmt"

	"github.com/intel/goresctrl/pkg/blockio"
	"github.com/intel/goresctrl/pkg/rdt"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

var errNoFile = errors.New("no configuration file is named")

// Options name the configuration files; an empty one switches its classes off.
type Options struct {
	BlockIOConfigFile string
	RDTConfigFile     string
}

// Classes are those of the node.
type Classes struct {
	blockIO, rdt error // why there are none; nil where there are
}

// New applies the configuration files. One that the host cannot meet is no error here: containers that
// name such a class are refused, and Faults says why.
func New(o Options) *Classes {
	c := &Classes{blockIO: errNoFile, rdt: errNoFile}
	if o.BlockIOConfigFile != "" {
		c.blockIO = blockio.SetConfigFromFile(o.BlockIOConfigFile, false)
	}
	if o.RDTConfigFile != "" {
		c.rdt = rdt.Initialize("")
		if c.rdt == nil {
			c.rdt = rdt.SetConfigFromFile(o.RDTConfigFile, false)
		}
	}
	return c
}

// Faults are what is wrong with the files that are configured.
func (c *Classes) Faults() error {
	var errs []error
	for what, err := range map[string]error{"block I/O": c.blockIO, "RDT": c.rdt} {
		if err != nil && !errors.Is(err, errNoFile) {
			errs = append(errs, fmt.Errorf("%s classes: %w", what, err))
		}
	}
	return errors.Join(errs...)
}

// Request carries the annotations that can name classes, those of the container winning over the pod's.
type Request struct {
	Container            string // name of the container in its pod
	ContainerAnnotations map[string]string
	PodAnnotations       map[string]string
}

// Apply sets the classes in spec. An error wraps ocispec.ErrUnsupported where the node has no classes of
// the kind, and ocispec.ErrInvalid for a class that it does not have.
func (c *Classes) Apply(spec *specs.Spec, req Request) error {
	if err := c.applyBlockIO(spec, req); err != nil {
		return err
	}
	return c.applyRDT(spec, req)
}

func (c *Classes) applyBlockIO(spec *specs.Spec, req Request) error {
	class, err := blockio.ContainerClassFromAnnotations(req.Container, req.ContainerAnnotations, req.PodAnnotations)
	if err != nil {
		return fmt.Errorf("%w: block I/O class: %w", ocispec.ErrInvalid, err)
	}
	if class == "" {
		return nil
	}
	spec.Linux.Resources.BlockIO, err = c.BlockIO(class)
	return err
}

// BlockIO returns the limits of a class. Its errors are those of Apply.
func (c *Classes) BlockIO(class string) (*specs.LinuxBlockIO, error) {
	if c.blockIO != nil {
		return nil, fmt.Errorf("%w: block I/O class %q on this node: %w", ocispec.ErrUnsupported, class, c.blockIO)
	}
	limits, err := blockio.OciLinuxBlockIO(class)
	if err != nil {
		return nil, fmt.Errorf("%w: block I/O class %q: %w", ocispec.ErrInvalid, class, err)
	}
	return limits, nil
}

// RDT returns the settings of a class. Its errors are those of Apply.
func (c *Classes) RDT(class string) (*specs.LinuxIntelRdt, error) {
	if c.rdt != nil {
		return nil, fmt.Errorf("%w: RDT class %q on this node: %w", ocispec.ErrUnsupported, class, c.rdt)
	}
	if _, ok := rdt.GetClass(class); !ok {
		return nil, fmt.Errorf("%w: RDT class %q is not configured", ocispec.ErrInvalid, class)
	}
	return &specs.LinuxIntelRdt{ClosID: class}, nil
}

func (c *Classes) applyRDT(spec *specs.Spec, req Request) error {
	class, err := rdt.ContainerClassFromAnnotations(req.Container, req.ContainerAnnotations, req.PodAnnotations)
	if err != nil && c.rdt != nil {
		return fmt.Errorf("%w: RDT class on this node: %w: %w", ocispec.ErrUnsupported, c.rdt, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ocispec.ErrInvalid, err)
	}
	if class != "" {
		spec.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: class}
	}
	return nil
}
