package engine

import (
	"context"
	"fmt"
	"time"
)

// Plugin is one of containerd's own plugins.
type Plugin struct {
	Type, ID string // such as "io.containerd.snapshotter.v1" and "overlayfs"
	Err      string // why it does not work, empty where it does
}

// Plugins lists containerd's plugins, those that do not work among them.
func (e *Engine) Plugins(ctx context.Context) ([]Plugin, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := e.client.IntrospectionService().Plugins(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containerd's plugins: %w", err)
	}
	var list []Plugin
	for _, p := range resp.GetPlugins() {
		list = append(list, Plugin{Type: p.GetType(), ID: p.GetID(), Err: p.GetInitErr().GetMessage()})
	}
	return list, nil
}
