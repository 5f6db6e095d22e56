package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"k8s.io/klog/v2"
)

// undoTimeout bounds the DEL that follows a failed ADD.
const undoTimeout = time.Minute

// delGrace is how long a DEL may go on after its caller has gone. A plugin that is killed half-way can leave what no
// later DEL finds: bridge learns from the interface whose packet filter rules to delete, and deletes the interface first.
const delGrace = 30 * time.Second

// Setup brings up the pod's loopback device and connects the pod (CNI ADD). When it fails, what
// was done is undone (CNI DEL), even when ctx has ended; should that fail too, Teardown can be
// tried again. Errors wrap ErrInvalid or ErrNotReady where these are the reason.
func (n *Network) Setup(ctx context.Context, pod Pod) (Result, error) {
	opts, err := pod.options()
	if err != nil {
		return Result{}, err
	}
	conf, err := n.configuration()
	if err != nil {
		return Result{}, err
	}
	if err := loopbackUp(pod.NetNSPath); err != nil {
		return Result{}, err
	}
	result, err := n.add(ctx, pod, conf, opts)
	if err == nil {
		return result, nil
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return Result{}, errors.Join(err, n.del(clean, pod, conf))
}

func (n *Network) add(ctx context.Context, pod Pod, conf *configuration, opts []gocni.NamespaceOpts) (Result, error) {
	start := time.Now()
	added, err := conf.cni.Setup(ctx, pod.ID, pod.NetNSPath, opts...)
	if err != nil {
		return Result{}, fmt.Errorf("CNI ADD for sandbox %s: %w: %w", pod.ID, ErrPlugin, err)
	}
	result, err := newResult(added, n.opts.Prefer)
	if err != nil {
		return Result{}, fmt.Errorf("CNI ADD for sandbox %s: %w: %w", pod.ID, ErrPlugin, err)
	}
	klog.FromContext(ctx).V(4).Info("Pod connected", "sandbox", pod.ID, "ips", result.IPs, "duration", time.Since(start))
	return result, nil
}

// Teardown disconnects the pod (CNI DEL): from every network that libcni remembers for it, by the
// configuration and arguments of that time, and from those of the present configuration, which
// an interrupted Setup may have left half connected. It goes on for delGrace when ctx ends, and may be repeated. The network namespace
// may be gone, and so may the node's CNI configuration.
func (n *Network) Teardown(ctx context.Context, pod Pod) error {
	if err := pod.validate(); err != nil {
		return err
	}
	conf, err := n.configuration()
	if err != nil {
		klog.FromContext(ctx).V(4).Info("Disconnecting without a CNI configuration", "sandbox", pod.ID, "reason", err)
		conf = &configuration{}
	}
	ctx, cancel := outlive(ctx, delGrace)
	defer cancel()
	return n.del(ctx, pod, conf)
}

// outlive returns a context that ends grace after ctx does, or when cancel is called.
func outlive(ctx context.Context, grace time.Duration) (longer context.Context, cancel func()) {
	longer, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-longer.Done():
		case <-time.After(grace):
			end(context.Cause(ctx))
		}
	})
	return longer, func() { stop(); end(context.Canceled) }
}

// del runs DEL in the reverse order of ADD, for all networks despite errors.
func (n *Network) del(ctx context.Context, pod Pod, conf *configuration) error {
	cached, err := n.cni.GetCachedAttachments(pod.ID)
	if err != nil {
		return fmt.Errorf("read CNI attachments of sandbox %s: %w", pod.ID, err)
	}
	deletions, err := plan(pod, conf, cached)
	errs := []error{err}
	netNS := pod.NetNSPath
	if !isNetNS(netNS) {
		netNS = "" // CNI's word for: it is gone
	}
	for _, d := range slices.Backward(deletions) {
		d.conf.NetNS = netNS
		if err := n.cni.DelNetworkList(ctx, d.list, d.conf); err != nil && !unknownContainer(err) {
			errs = append(errs, fmt.Errorf("CNI DEL of network %s for sandbox %s: %w", d.list.Name, pod.ID, err))
		}
	}
	return errors.Join(errs...)
}

// deletion is one DEL.
type deletion struct {
	list *libcni.NetworkConfigList
	conf *libcni.RuntimeConf
}

// plan lists what the pod is to be disconnected from: what is cached, then what is configured
// and not cached. A cached network whose configuration cannot be read is left out and reported.
func plan(pod Pod, conf *configuration, cached []*libcni.NetworkAttachment) (deletions []deletion, err error) {
	var errs []error
	known := map[[2]string]bool{}
	for _, a := range cached {
		list, err := conf.listOf(a)
		if err != nil {
			errs = append(errs, fmt.Errorf("cached CNI network %s of sandbox %s: %w", a.Network, pod.ID, err))
			continue
		}
		known[[2]string{a.Network, a.IfName}] = true
		deletions = append(deletions, deletion{list, &libcni.RuntimeConf{
			ContainerID: a.ContainerID, IfName: a.IfName, Args: a.CniArgs, CapabilityArgs: a.CapabilityArgs,
		}})
	}
	for _, network := range conf.networks {
		if known[[2]string{network.list.Name, network.ifName}] {
			continue
		}
		rt := &libcni.RuntimeConf{ContainerID: pod.ID, IfName: network.ifName}
		for key, value := range pod.args() {
			rt.Args = append(rt.Args, [2]string{key, value})
		}
		if ports := pod.hostPorts(); len(ports) > 0 {
			rt.CapabilityArgs = map[string]any{"portMappings": ports}
		}
		deletions = append(deletions, deletion{network.list, rt})
	}
	return deletions, errors.Join(errs...)
}

// listOf returns the configuration that an attachment was made with. The cache holds the file
// alone; while that is unchanged, what was loaded also has the plugins from the network's own
// directory.
func (conf *configuration) listOf(a *libcni.NetworkAttachment) (*libcni.NetworkConfigList, error) {
	for _, network := range conf.networks {
		if network.list.Name == a.Network && string(network.list.Bytes) == string(a.Config) {
			return network.list, nil
		}
	}
	return libcni.ConfListFromBytes(a.Config)
}

// unknownContainer reports whether a plugin answered that it has nothing for the container, which
// CNI takes for a successful DEL.
func unknownContainer(err error) bool {
	var e *types.Error
	return errors.As(err, &e) && e.Code == types.ErrUnknownContainer
}
