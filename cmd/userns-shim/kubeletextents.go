package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
)

// getsubidsTimeout bounds a name service that hangs.
const getsubidsTimeout = 5 * time.Second

// kubeletSources are where kubelet finds out which ids it may give to pods.
type kubeletSources struct {
	lookup    func(name string) (*user.User, error)
	getsubids func(ctx context.Context, args ...string) (string, error)
}

// hostSources are those of this node.
func hostSources() kubeletSources {
	return kubeletSources{lookup: user.Lookup, getsubids: func(ctx context.Context, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, getsubidsTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, "getsubids", args...).Output()
		return string(out), err
	}}
}

// extents returns what kubelet draws from, as kubelet finds it: what getsubids prints for the user kubelet, and
// without such a user or without the program all ids. An error says why kubelet would not start.
func (s kubeletSources) extents(ctx context.Context) ([]idpool.Range, error) {
	_, err := s.lookup(subid.User)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return everything(ctx, "there is no user "+subid.User), nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %s: %w", subid.User, err)
	}
	uids, err := s.subordinate(ctx, subid.User)
	if errors.Is(err, exec.ErrNotFound) {
		return everything(ctx, "there is no program getsubids"), nil
	}
	if err != nil {
		return nil, err
	}
	gids, err := s.subordinate(ctx, "-g", subid.User)
	if err != nil {
		return nil, err
	}
	extent, err := subid.Kubelet(uids, gids, idpool.Unit)
	if err != nil {
		return nil, err
	}
	return []idpool.Range{extent}, nil
}

// everything is what kubelet draws from where nobody limits it. It overlaps the pool's own extents.
func everything(ctx context.Context, reason string) []idpool.Range {
	klog.FromContext(ctx).Info("kubelet gives any host ids to pods, those of the pool's own extents too; give the user kubelet "+
		"one line in /etc/subuid and the same in /etc/subgid, and install getsubids", "reason", reason)
	return []idpool.Range{subid.Unconfigured(idpool.Unit)}
}

func (s kubeletSources) subordinate(ctx context.Context, args ...string) ([]idpool.Range, error) {
	out, err := s.getsubids(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("getsubids %v: %w", args, err)
	}
	lines, err := subid.ParseGetsubids("getsubids", out)
	return subid.Of(lines, subid.User), err
}

// kubeletExtents are those of the configuration or, for auto, of the node. What kubelet could not use either is
// logged and replaced by the extents that an installer gives to kubelet: pods of this node may run already.
func kubeletExtents(ctx context.Context, s kubeletSources) []idpool.Range {
	extents, err := s.extents(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Read kubelet's extents of host ids; kubelet does not start with them either")
		return idpool.DefaultKubeletExtents()
	}
	return extents
}
