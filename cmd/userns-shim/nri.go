package main

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/nri"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// buildPlugins makes the adapter for NRI plugins, which startPlugins starts. It is closed before what
// plugins change.
func (d *daemon) buildPlugins(ctx context.Context) error {
	d.classes = classes(ctx, d.cfg)
	cfg := d.cfg.NRI
	if !cfg.Enabled {
		return nil
	}
	host, err := d.node.host()
	if err != nil {
		return err
	}
	opts := nri.Options{
		Version:             version.Version,
		Socket:              cfg.SocketPath,
		PluginDir:           cfg.PluginPath,
		ConfigDir:           cfg.PluginConfigPath,
		RegistrationTimeout: time.Duration(cfg.PluginRegistrationTimeout),
		RequestTimeout:      time.Duration(cfg.PluginRequestTimeout),
		Host:                host,
		CDISpecDirs:         d.cfg.CDISpecDirs,
		Classes:             d.classes,
		Logger:              klog.FromContext(ctx),
	}
	if cfg.DisableConnections {
		opts.Socket = ""
	}
	d.plugins, err = nri.New(opts)
	return err
}

// startPlugins comes when the records are true. The pods of a node without plugins run on: what keeps plugins
// away is logged, and Status says it.
func (d *daemon) startPlugins(ctx context.Context) {
	if d.plugins == nil {
		return
	}
	if err := d.plugins.Start(d.sandboxes, d.containers); err != nil {
		klog.FromContext(ctx).Error(err, "NRI")
	}
}

// sandboxPlugins and containerPlugins are nil where the configuration turns NRI off.
func (d *daemon) sandboxPlugins() sandbox.Plugins {
	if d.plugins == nil {
		return nil
	}
	return d.plugins.ForSandboxes()
}

func (d *daemon) containerPlugins() container.Plugins {
	if d.plugins == nil {
		return nil
	}
	return d.plugins.ForContainers()
}
