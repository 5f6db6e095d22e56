package fromcontainerd

import (
	"path/filepath"
	"regexp"
	"slices"

	"github.com/userns-shim/userns-shim/internal/config"
)

// runtimeRules are those of containerd.runtimes, which become runtime handlers.
var runtimeRules = map[string]rule{
	"containerd.default_runtime_name": text("defaultRuntimeHandler", func(c *config.Config) *string { return &c.DefaultRuntimeHandler }),

	runtimes + "NAME.runtime_type":                    shim,
	runtimes + "NAME.runtime_path":                    handlerText("runtime", func(h *config.RuntimeHandler) *string { return &h.Runtime }),
	runtimes + "NAME.snapshotter":                     handlerText("snapshotter", func(h *config.RuntimeHandler) *string { return &h.Snapshotter }),
	runtimes + "NAME.options.BinaryName":              handlerText("binaryName", func(h *config.RuntimeHandler) *string { return &h.BinaryName }),
	runtimes + "NAME.options.Root":                    handlerText("root", func(h *config.RuntimeHandler) *string { return &h.Root }),
	runtimes + "NAME.options.ShimCgroup":              handlerText("shimCgroup", func(h *config.RuntimeHandler) *string { return &h.ShimCgroup }),
	runtimes + "NAME.pod_annotations":                 handlerList("podAnnotations", func(h *config.RuntimeHandler) *[]string { return &h.PodAnnotations }),
	runtimes + "NAME.container_annotations":           handlerList("containerAnnotations", func(h *config.RuntimeHandler) *[]string { return &h.ContainerAnnotations }),
	runtimes + "NAME.privileged_without_host_devices": withoutDevices,
	runtimes + "NAME.options.SystemdCgroup":           systemdCgroup,

	runtimes + "NAME.privileged_without_host_devices_all_devices_allowed": unless(false, "a privileged container may use the devices that it has"),

	runtimes + "NAME.base_runtime_spec":        unless("", "a specification of its own could contradict what userns-shim builds"),
	runtimes + "NAME.cni_conf_dir":             unless("", "all handlers have the network of cni.confDir"),
	runtimes + "NAME.cni_max_conf_num":         unless(int64(0), "the first configuration by name is the pod's network"),
	runtimes + "NAME.cgroup_writable":          unless(false, "cgroups are read-only in pods that are not privileged"),
	runtimes + "NAME.sandboxer":                sandboxer,
	runtimes + "NAME.io_type":                  unless("", "containers have FIFOs"),
	runtimes + "NAME.disable_pause_image_pull": unless(false, "there is no pause image"),
	runtimes + "NAME.runtime_engine":           unless("", "is of a runtime that containerd no longer has: use options.BinaryName"),
	runtimes + "NAME.runtime_root":             unless("", "is of a runtime that containerd no longer has: use options.Root"),
	runtimes + "NAME.options.IoUid":            unless(int64(0), "streams belong to the container's user"),
	runtimes + "NAME.options.IoGid":            unless(int64(0), "streams belong to the container's user"),
	runtimes + "NAME.options.NoNewKeyring":     unless(false, "weakens containers"),
	runtimes + "NAME.options.NoPivotRoot":      unless(false, "weakens containers"),
	runtimes + "NAME.options.CriuPath":         unless("", "CRIU is the one on containerd's PATH"),
	runtimes + "NAME.options.CriuImagePath":    unless("", "checkpoints are below userns-shim's root"),
	runtimes + "NAME.options.CriuWorkPath":     unless("", "checkpoints are below userns-shim's root"),
}

// handler is the one that a setting belongs to; it is made with the defaults where it is new.
func (t *translator) handler(name string) config.RuntimeHandler {
	h, ok := t.handlers[name]
	if !ok {
		h = config.Default().RuntimeHandlers["runc"]
	}
	return h
}

// edit changes one field of the setting's handler.
func (t *translator) edit(s setting, field string, change func(*config.RuntimeHandler)) {
	h := t.handler(s.runtime)
	change(&h)
	t.handlers[s.runtime] = h
	t.carried(s, "runtimeHandlers."+s.runtime+"."+field)
}

// drop leaves the setting's handler out.
func (t *translator) drop(s setting, why string) {
	t.note(s, why)
	t.dropped = append(t.dropped, s.runtime)
}

// dnsLabel is what RuntimeClass.handler may be.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ociShims are the shims that take the options of containerd's own for OCI runtimes.
var ociShims = []string{"io.containerd.runc.v2"}

func shim(t *translator, s setting) error {
	v, err := value[string](s)
	switch {
	case err != nil:
		return err
	case !dnsLabel.MatchString(s.runtime):
		t.drop(s, "is of a handler that no RuntimeClass can name: it has to be lower-case letters, digits and dashes")
	case !slices.Contains(ociShims, v) && !filepath.IsAbs(v):
		t.drop(s, "is no shim for OCI runtimes: pods of this handler cannot run on userns-shim, so keep nodes with containerd's CRI for them")
	default:
		t.edit(s, "runtime", func(h *config.RuntimeHandler) { h.Runtime = v })
	}
	return nil
}

func sandboxer(t *translator, s setting) error {
	if !empty(s.value) && s.value != "podsandbox" {
		t.drop(s, "is no sandbox of namespaces: pods of this handler cannot run on userns-shim")
	}
	return nil
}

func handlerText(to string, field func(*config.RuntimeHandler) *string) rule {
	return func(t *translator, s setting) error {
		v, err := value[string](s)
		if err == nil && v != "" {
			t.edit(s, to, func(h *config.RuntimeHandler) { *field(h) = v })
		}
		return err
	}
}

func handlerList(to string, field func(*config.RuntimeHandler) *[]string) rule {
	return func(t *translator, s setting) error {
		v, err := stringList(s)
		if err == nil && len(v) > 0 {
			t.edit(s, to, func(h *config.RuntimeHandler) { *field(h) = v })
		}
		return err
	}
}

func withoutDevices(t *translator, s setting) error {
	v, err := value[bool](s)
	if err == nil && v {
		t.edit(s, "privilegedWithoutHostDevices", func(h *config.RuntimeHandler) { h.PrivilegedWithoutHostDevices = v })
	}
	return err
}

func systemdCgroup(t *translator, s setting) error {
	v, err := value[bool](s)
	if err != nil {
		return err
	}
	if t.drivers == nil {
		t.drivers = map[string]bool{}
	}
	t.drivers[s.runtime] = v
	t.carried(s, "cgroupDriver")
	return nil
}
