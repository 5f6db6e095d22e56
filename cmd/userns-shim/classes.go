package main

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
)

// classes applies the files of block I/O and RDT classes. A fault in them is for the containers that name
// a class, and for the operator's eyes: all others run as ever.
func classes(ctx context.Context, cfg config.Config) *qosclass.Classes {
	c := qosclass.New(qosclass.Options{BlockIOConfigFile: cfg.BlockIOConfigFile, RDTConfigFile: cfg.RDTConfigFile})
	if err := c.Faults(); err != nil {
		klog.FromContext(ctx).Error(err, "Containers of these classes will be refused")
	}
	return c
}
