package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/container/podinit"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// podInitName is the program of pods whose containers share a PID namespace.
const podInitName = "userns-shim-init"

// podInit runs the processes of such pods.
func (d *daemon) podInit() (*podinit.Runner, error) {
	program := d.cfg.SandboxInit
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", podInitName, err)
		}
		program = filepath.Join(filepath.Dir(self), podInitName)
	}
	host, err := d.node.host()
	if err != nil {
		return nil, err
	}
	return podinit.New(podinit.Options{
		Records:        d.engine,
		Tasks:          d.engine,
		Pins:           hostNamespaces{},
		Program:        program,
		StateDir:       d.cfg.State,
		Handlers:       d.handlers(),
		DefaultHandler: d.cfg.DefaultRuntimeHandler,
		Host:           host,
		SystemdCgroup:  d.node.SystemdCgroup(),
	})
}

// handlers are the runtime handlers by name.
func (d *daemon) handlers() map[string]container.Handler {
	out := map[string]container.Handler{}
	for name, h := range d.cfg.RuntimeHandlers {
		out[name] = container.Handler{
			Runtime:     h.Runtime,
			BinaryName:  h.BinaryName,
			Snapshotter: d.snapshotters()[name],
			Options:     container.RuntimeOptions{Root: h.Root, ShimCgroup: h.ShimCgroup},

			PodAnnotations:               h.PodAnnotations,
			ContainerAnnotations:         h.ContainerAnnotations,
			PrivilegedWithoutHostDevices: h.PrivilegedWithoutHostDevices,
		}
	}
	return out
}

func (hostNamespaces) PinPID(pid int, id, path string) error {
	return ns.PinPID(ns.Task{PID: pid, ID: id}, path)
}

func (hostNamespaces) UnpinPID(path string) error { return ns.UnpinPID(path) }

func (hostNamespaces) CheckPID(pid int, id, path string) error {
	return ns.CheckPID(ns.Task{PID: pid, ID: id}, path)
}

func (hostNamespaces) AwaitExit(ctx context.Context, pid int, id string) error {
	return ns.AwaitExit(ctx, ns.Task{PID: pid, ID: id})
}
