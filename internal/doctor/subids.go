package doctor

import (
	"context"
	"errors"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
)

// checkSubIDs finds kubelet's ids as kubelet does.
func (x *exam) checkSubIDs(ctx context.Context) {
	const install = "useradd --system --no-create-home kubelet; "
	there, err := x.Ports.KubeletUser()
	switch {
	case err != nil:
		x.add("subids", Unknown, "getent passwd kubelet", "whether there is a user kubelet is not known: %v", err)
		return
	case !there:
		x.add("subids", Warning, install+"echo "+kubeletLine()+" | tee -a /etc/subuid /etc/subgid", "there is no user kubelet, so kubelet gives any host ids to pods, those of other programs and of the pool's own segment too")
		return
	}
	uids, err := x.subordinate(ctx, subid.User)
	if errors.Is(err, ErrNoProgram) {
		x.add("subids", Warning, "install the package that has getsubids (uidmap, shadow-utils-subid)", "there is no program getsubids, so kubelet gives any host ids to pods although the user kubelet exists")
		return
	}
	gids, gidErr := x.subordinate(ctx, "-g", subid.User)
	if err = errors.Join(err, gidErr); err != nil {
		x.add("subids", Error, "getsubids kubelet; getsubids -g kubelet", "kubelet's host ids cannot be listed, and it does not start: %v", err)
		return
	}
	ids := x.kubelet.idsPerPod()
	extent, err := subid.Kubelet(uids, gids, ids)
	if err != nil {
		x.add("subids", Error, "one line for kubelet, the same in both files: "+kubeletLine()+" in /etc/subuid and /etc/subgid", "kubelet does not start: %v", err)
		return
	}
	x.ok("subids", "kubelet has the ids %s: %d pods at once", extent, extent.Length/ids)
}

func (x *exam) subordinate(ctx context.Context, args ...string) ([]idpool.Range, error) {
	out, err := x.Ports.Getsubids(ctx, args...)
	if err != nil {
		return nil, err
	}
	lines, err := subid.ParseGetsubids("getsubids", out)
	return subid.Of(lines, subid.User), err
}
