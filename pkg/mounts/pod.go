package mounts

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/klog/v2"
)

// pod holds the idmapped clones of one pod. There is one for each directory that had to be cloned, thus
// one for a pod whose images come from one snapshotter.
type pod struct {
	mounter *Mounter

	mu     sync.Mutex // guards what follows; held over the making of a clone, so that it is made once
	clones map[place]*clone
	gone   bool
}

// clone is a detached clone of a directory, idmapped for a pod. Nobody but this process can
// reach it.
type clone struct {
	pod  *pod
	tree fd
	// name is where the clone is attached in the stage; empty when it is not.
	name string
	refs int // guarded by pod.mu; the pod itself holds one until it is forgotten
}

// pod returns the pod of a key, a new one where there is none.
func (m *Mounter) pod(key string) (*pod, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	p := m.pods[key]
	if p == nil {
		p = &pod{mounter: m, clones: make(map[place]*clone)}
		m.pods[key] = p
	}
	return p, nil
}

// clone returns the pod's idmapped clone of root, made now if it is the first time. The
// caller releases it.
func (p *pod) clone(ctx context.Context, root place, userns string) (*clone, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, fmt.Errorf("clone layers in %s: the pod was forgotten meanwhile", root.path)
	}
	if c := p.clones[root]; c != nil {
		c.refs++
		return c, nil
	}
	c, err := p.mounter.newClone(ctx, root.path, userns)
	if err != nil {
		return nil, err
	}
	c.pod, c.refs = p, 2
	p.clones[root] = c
	return c, nil
}

// newClone makes an idmapped clone, and attaches it in the stage where overlay needs that.
func (m *Mounter) newClone(ctx context.Context, path, userns string) (*clone, error) {
	ns, err := openUserNS(userns)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	tree, err := cloneTree(path, false)
	if err != nil {
		return nil, err
	}
	if err := idmap(tree, ns, 0, false, path); err != nil {
		tree.close()
		return nil, explain(err, path)
	}
	m.idmaps.Add(1)
	c := &clone{tree: tree}
	if m.overlayWay(ctx) == WayStaged {
		if c.name, err = m.stage.attach(tree); err != nil {
			tree.close()
			return nil, fmt.Errorf("attach layers of %s: %w", path, err)
		}
	}
	m.clones.Add(1)
	klog.FromContext(ctx).V(4).Info("Layers idmapped", "path", path, "userns", userns)
	return c, nil
}

// release gives back what clone returned.
func (c *clone) release() {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	c.pod.releaseLocked(c)
}

func (p *pod) releaseLocked(c *clone) {
	if c.refs--; c.refs > 0 {
		return
	}
	c.tree.close() // a clone that is attached nowhere ends here
	if c.name != "" {
		p.mounter.stage.detach(c.name)
	}
	p.mounter.clones.Add(-1)
}

// forget drops the pod's own hold on its clones. Those in use end when their Mount does.
func (p *pod) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, c := range p.clones {
		p.releaseLocked(c)
	}
	p.clones = nil
}
