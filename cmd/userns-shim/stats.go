package main

import (
	"context"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// layerReader asks the snapshotter for the size of writable layers.
type layerReader struct {
	engine *engine.Engine
}

var _ stats.LayerReader = layerReader{}

func (r layerReader) ReadLayer(ctx context.Context, snapshotter, key string) (stats.Layer, error) {
	u, err := r.engine.SnapshotUsage(ctx, snapshotter, key)
	if err != nil {
		return stats.Layer{}, err
	}
	return stats.Layer{Mountpoint: u.Mountpoint, Bytes: u.Bytes, Inodes: u.Inodes, At: u.At}, nil
}

func (d *daemon) buildStats(ctx context.Context) error {
	reader, err := stats.NewReader(stats.ReaderOptions{
		Root:    cgroupRoot,
		Unified: d.node.kernel.CgroupMode() == kernel.CgroupUnified,
		Clock:   clock.RealClock{},
	})
	if err != nil {
		return err
	}
	d.stats = stats.New(stats.Options{
		Reader: reader,
		Layers: layerReader{engine: d.engine},
		Clock:  clock.RealClock{},
		Logger: klog.FromContext(ctx),
	})
	d.closers = append(d.closers, closerFunc(func() error { d.stats.Close(); return nil }))
	return nil
}
