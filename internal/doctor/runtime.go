package doctor

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// leastContainerd is the first whose runtime tells the features of the OCI runtime.
var leastContainerd = version.MajorMinor(2, 0)

// Types of containerd's plugins.
const (
	snapshotterType = "io.containerd.snapshotter.v1"
	runtimeType     = "io.containerd.runtime.v2"
	criType         = "io.containerd.cri.v1"
	grpcType        = "io.containerd.grpc.v1"
	nriType         = "io.containerd.nri.v1"
)

func (x *exam) checkContainerd(ctx context.Context) {
	told, err := x.Ports.Engine.Version(ctx)
	if err != nil {
		x.engine = err
		x.add("containerd", Error, "systemctl status containerd; or name its socket in containerd.address of the configuration", "containerd does not answer at %s: %v", x.Node.Containerd, err)
		return
	}
	if v, err := version.ParseGeneric(told); err == nil && v.LessThan(leastContainerd) {
		x.add("containerd", Error, "install containerd 2.0 or newer", "containerd %s does not tell what the OCI runtime can do", told)
	} else {
		x.ok("containerd", "containerd %s at %s", told, x.Node.Containerd)
	}
	plugins, err := x.Ports.Engine.Plugins(ctx)
	if err != nil {
		x.add("containerd", Unknown, "ctr --address "+x.Node.Containerd+" plugins ls", "containerd's plugins are not known: %v", err)
		return
	}
	x.checkPlugins(plugins)
}

func (x *exam) checkPlugins(plugins []Plugin) {
	find := func(kind, id string) *Plugin {
		i := slices.IndexFunc(plugins, func(p Plugin) bool { return p.Type == kind && (id == "" || p.ID == id) })
		if i < 0 {
			return nil
		}
		return &plugins[i]
	}
	need := func(kind, id, what string) {
		switch p := find(kind, id); {
		case p == nil:
			x.add("containerd", Error, "take it out of disabled_plugins in /etc/containerd/config.toml, or configure another; restart containerd", "containerd has no %s", what)
		case p.Err != "":
			x.add("containerd", Error, "see journalctl -u containerd; a missing module comes by: modprobe "+moduleOf(id), "the %s of containerd does not work: %s", what, p.Err)
		}
	}
	need(runtimeType, "", "runtime of tasks")
	seen := map[string]bool{}
	for _, h := range x.Node.Handlers {
		if !seen[h.Snapshotter] {
			seen[h.Snapshotter] = true
			need(snapshotterType, h.Snapshotter, "snapshotter "+h.Snapshotter)
		}
	}
	if p := find(grpcType, "cri"); p != nil && p.Err == "" || find(criType, "runtime") != nil {
		x.add("containerd", Info, "", `containerd's own CRI plugin is on; it does no harm, and takes memory: disabled_plugins = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"] turns it off`)
	}
	if p := find(nriType, "nri"); p != nil && p.Err == "" && x.Node.NRI != "" {
		x.add("containerd", Info, "", "containerd's own NRI is on, as that of userns-shim is: plugins connect to whichever started first. [plugins.\"io.containerd.nri.v1.nri\"] disable = true in /etc/containerd/config.toml leaves them to userns-shim")
	}
}

func moduleOf(snapshotter string) string {
	if snapshotter == "overlayfs" {
		return "overlay"
	}
	return snapshotter
}

func (x *exam) checkHandlers(ctx context.Context) {
	for _, h := range x.Node.Handlers {
		switch {
		case h.Never:
			x.add("handler", Info, "", "runtime handler %s gives no user namespaces: the configuration says userNamespaces: never", h.Name)
		case x.engine != nil:
			x.add("handler", Unknown, "start containerd first", "what %s of runtime handler %s can do is asked through containerd", h.BinaryName, h.Name)
		default:
			if err := x.Ports.UserNamespaces(ctx, h.Name); err != nil {
				x.add("handler", Error, handlerRemedy(err, h), "pods of runtime handler %s get no user namespaces: %v", h.Name, err)
			} else {
				x.ok("handler", "runtime handler %s: %s gives pods user namespaces", h.Name, h.BinaryName)
			}
		}
	}
}

func handlerRemedy(err error, h Handler) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "crun"), strings.Contains(text, "runc"):
		return "install runc 1.2 or crun 1.24, or newer; what there is: " + h.BinaryName + " --version"
	case strings.Contains(text, "snapshotter"):
		return "configure a snapshotter that containerd has: containerd.snapshotter of the configuration"
	}
	return "see the findings about kernel and filesystems"
}

func (x *exam) checkNetwork(ctx context.Context) {
	if err := x.Ports.Network(ctx); err != nil {
		x.add("network", Error, "install the cluster's network plugin, which writes its configuration to "+x.Node.ConfDir, "pods get no network: %v", err)
		return
	}
	x.ok("network", "CNI configuration in %s, and its plugins", x.Node.ConfDir)
}
