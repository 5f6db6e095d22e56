package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	read      func(path string) ([]byte, error)
}

// hostSources are those of this node.
func hostSources() kubeletSources {
	return kubeletSources{lookup: user.Lookup, read: os.ReadFile, getsubids: func(ctx context.Context, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, getsubidsTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, "getsubids", args...).Output()
		return string(out), err
	}}
}

// extents returns what kubelet draws from, as kubelet finds it: what getsubids prints for the user kubelet, and
// without such a user all ids. kubelet may have the program on a PATH of its own; so what it would print of the files
// is taken where they name kubelet, and all ids where they do not. An error says why kubelet would not start.
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
	if noProgram(err) {
		return s.filed(ctx)
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

// filed returns the extent that the files give to kubelet, or all ids where they give it none.
func (s kubeletSources) filed(ctx context.Context) ([]idpool.Range, error) {
	uids, err := s.inFile("/etc/subuid")
	if err != nil {
		return nil, err
	}
	gids, err := s.inFile("/etc/subgid")
	if err != nil {
		return nil, err
	}
	if len(uids)+len(gids) == 0 {
		return everything(ctx, "there is no program getsubids, and no line in the files"), nil
	}
	extent, err := subid.Kubelet(uids, gids, idpool.Unit)
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("kubelet's extents of host ids are read from the files; kubelet itself needs getsubids", "extent", extent)
	return []idpool.Range{extent}, nil
}

// inFile returns kubelet's ranges in one of the files. Lines that cannot be read are passed over, as by the programs
// that use the files; a file that is not there is empty.
func (s kubeletSources) inFile(path string) ([]idpool.Range, error) {
	text, err := s.read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	lines, _ := subid.ParseFile(path, bytes.NewReader(text))
	return subid.Of(lines, subid.User), nil
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

// noProgram says that getsubids is not installed.
func noProgram(err error) bool { return errors.Is(err, exec.ErrNotFound) }
