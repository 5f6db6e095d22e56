package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/idnames"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
	"github.com/userns-shim/userns-shim/pkg/varlink"
)

// namesSocketMode lets every user of the host look names up.
const namesSocketMode = 0o666

// serveNames answers systemd's lookups of users and groups until ctx ends. Names are a convenience: what keeps
// them from being served is logged, and the pods of the node run on.
func (d *daemon) serveNames(ctx context.Context) {
	listener := listenNames(ctx, d.cfg.UserDatabase.SocketDir)
	if listener == nil {
		return
	}
	names := idnames.New(idnames.Options{Ledger: d.pool, Pod: d.podOf, Extents: d.namedExtents})
	server, err := varlink.New(varlink.Options{
		Info: varlink.Info{
			Vendor: "userns-shim", Product: "userns-shim", Version: version.Version, URL: "https://github.com/userns-shim/userns-shim",
		},
		Interfaces: []varlink.Interface{names.Interface()},
	})
	if err == nil {
		err = server.Serve(ctx, listener)
	} else {
		err = errors.Join(err, listener.Close())
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Serve names of host ids")
	}
}

// listenNames returns nil where nobody would look, or another process serves.
func listenNames(ctx context.Context, dir string) net.Listener {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		klog.FromContext(ctx).V(2).Info("No names of host ids are served: systemd is not there to ask for them", "directory", dir)
		return nil
	}
	listener, err := listenUnix(filepath.Join(dir, idnames.Service), namesSocketMode)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listen for lookups of host ids")
		return nil
	}
	return listener
}

// podOf returns what a sandbox's pod is called.
func (d *daemon) podOf(id string) (idnames.Pod, bool) {
	rec, err := d.sandboxes.Get(id)
	if err != nil {
		return idnames.Pod{}, false
	}
	return idnames.Pod{Namespace: rec.Spec.Metadata.Namespace, Name: rec.Spec.Metadata.Name}, true
}

// namedExtents are the ranges that are for pods and nobody else. A kubelet that nobody limits draws from all ids, and
// users of a directory service have some of those.
func (d *daemon) namedExtents() []idpool.Range {
	extents := d.pool.Extents(idpool.SegmentPool)
	kubelet := d.pool.Extents(idpool.SegmentKubelet)
	if slices.Contains(kubelet, subid.Unconfigured(idpool.Unit)) {
		return extents
	}
	return append(extents, kubelet...)
}
