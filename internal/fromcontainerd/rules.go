package fromcontainerd

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/internal/config"
)

// rule carries one setting over, or notes why not.
type rule func(t *translator, s setting) error

// rules has every setting that containerd's own default file has. Runtimes are in runtimerules.go.
var rules = merge(runtimeRules, map[string]rule{
	"grpc.address": text("containerd.address", func(c *config.Config) *string { return &c.Containerd.Address }),
	"grpc.uid":     ownContainerds, "grpc.gid": ownContainerds, "grpc.tcp_address": ownContainerds, "grpc.tcp_tls_ca": ownContainerds,
	"grpc.tcp_tls_cert": ownContainerds, "grpc.tcp_tls_key": ownContainerds,
	"grpc.max_recv_message_size": ownContainerds, "grpc.max_send_message_size": ownContainerds,

	"snapshotter":                 text("containerd.snapshotter", func(c *config.Config) *string { return &c.Containerd.Snapshotter }),
	"image_pull_progress_timeout": duration("registry.pullProgressTimeout", func(c *config.Config) *config.Duration { return &c.Registry.PullProgressTimeout }),
	"registry.config_path":        text("registry.configPath", func(c *config.Config) *string { return &c.Registry.ConfigPath }),
	"registry.mirrors":            unless(nil, "is deprecated: write hosts.toml files below registry.configPath"),
	"registry.configs":            unless(nil, "is deprecated: write TLS into hosts.toml below registry.configPath, and passwords into pull secrets or a kubelet credential provider"),
	"registry.auths":              unless(nil, "is deprecated: use pull secrets or a kubelet credential provider"),
	"registry.headers":            unless(nil, "write headers into hosts.toml below registry.configPath"),
	"pinned_images.sandbox":       sandboxImage,

	"disable_snapshot_annotations":          unless(true, "is for remote snapshotters, which userns-shim does not feed with annotations"),
	"discard_unpacked_layers":               unless(false, "userns-shim keeps the layers as they came"),
	"max_concurrent_downloads":              unless(int64(3), "userns-shim has no such limit"),
	"concurrent_layer_fetch_buffer":         unless(int64(0), "userns-shim fetches each layer as one stream"),
	"image_pull_with_sync_fs":               unless(false, "userns-shim does not sync the file system after a pull"),
	"use_local_image_pull":                  unless(false, "userns-shim has one way to pull"),
	"stats_collect_period":                  onDemand,
	"stats_retention_period":                onDemand,
	"image_decryption.key_model":            unless("node", "userns-shim does not decrypt images"),
	"runtime_platforms":                     unless(nil, "give the runtime handler its snapshotter"),
	"containerd.default_runtime":            oldRuntime,
	"containerd.no_pivot":                   unless(false, "weakens containers"),
	"max_container_log_line_size":           logLine,
	"restrict_oom_score_adj":                boolean("restrictOOMScoreAdj", func(c *config.Config) *bool { return &c.RestrictOOMScoreAdj }),
	"enable_unprivileged_ports":             boolean("enableUnprivilegedPorts", func(c *config.Config) *bool { return &c.EnableUnprivilegedPorts }),
	"enable_unprivileged_icmp":              boolean("enableUnprivilegedICMP", func(c *config.Config) *bool { return &c.EnableUnprivilegedICMP }),
	"cdi_spec_dirs":                         list("cdiSpecDirs", func(c *config.Config) *[]string { return &c.CDISpecDirs }),
	"enable_cdi":                            unless(true, "CDI is always on, as it is from containerd 2.0; cdiSpecDirs: [] leaves it nothing to find"),
	"enable_criu":                           unless(true, "checkpoints are there where CRIU is"),
	"enable_selinux":                        unless(false, "SELinux is used wherever the host has it on"),
	"selinux_category_range":                unless(int64(1024), "userns-shim takes categories from all 1024"),
	"disable_apparmor":                      unless(false, "AppArmor is used wherever the host has it on"),
	"disable_cgroup":                        unless(false, "userns-shim needs cgroups"),
	"disable_proc_mount":                    unless(false, "pods get the procMount that they ask for"),
	"disable_hugetlb_controller":            unless(true, "userns-shim sets limits on huge pages where the host has the controller"),
	"unset_seccomp_profile":                 unless("", "a container without a profile is unconfined; kubelet's seccompDefault gives it one"),
	"ignore_image_defined_volumes":          unless(false, "volumes that an image declares are directories on the node"),
	"netns_mounts_under_state_dir":          unless(false, "network namespaces are at /var/run/netns"),
	"drain_exec_sync_io_timeout":            unless("0s", "the answer to ExecSync does not wait for children of the command"),
	"ignore_deprecation_warnings":           unless(nil, "there are none"),
	"systemd_cgroup":                        unless(false, "is of an older runtime: use cgroupDriver"),
	"disable_tcp_service":                   unless(true, "CRI is served on a unix socket alone"),
	"enable_tls_streaming":                  unless(false, "streams are on loopback between kubelet and userns-shim, without TLS"),
	"stream_idle_timeout":                   duration("streaming.idleTimeout", func(c *config.Config) *config.Duration { return &c.Streaming.IdleTimeout }),
	"stream_server_address":                 streamHost,
	"stream_server_port":                    streamPort,
	"cni.bin_dir":                           binDir,
	"cni.bin_dirs":                          list("cni.binDirs", func(c *config.Config) *[]string { return &c.CNI.BinDirs }),
	"cni.conf_dir":                          text("cni.confDir", func(c *config.Config) *string { return &c.CNI.ConfDir }),
	"cni.max_conf_num":                      unless(int64(1), "the first configuration by name is the pod's network"),
	"cni.conf_template":                     unless("", "let the CNI plugin's installer write its own configuration"),
	"cni.ip_pref":                           unless("", "addresses are reported in the order of the plugin's result"),
	"cni.setup_serially":                    unless(false, "plugins of one list run one after the other, and there is one list"),
	"cni.use_internal_loopback":             unless(false, "loopback is always brought up without a plugin"),
	"x509_key_pair_streaming.tls_cert_file": unless("", "streams have no TLS"),
	"x509_key_pair_streaming.tls_key_file":  unless("", "streams have no TLS"),

	"containerd.untrusted_workload_runtime":        oldRuntime,
	"containerd.ignore_blockio_not_enabled_errors": unless(false, "a container that names a class which is not there is refused"),
	"containerd.ignore_rdt_not_enabled_errors":     unless(false, "a container that names a class which is not there is refused"),
	"tolerate_missing_hugetlb_controller":          unless(true, "a missing controller is always tolerated"),
	"device_ownership_from_security_context":       unless(false, "devices keep the host's owners"),

	"nri.disable":                     disableNRI,
	"nri.socket_path":                 text("nri.socketPath", func(c *config.Config) *string { return &c.NRI.SocketPath }),
	"nri.plugin_path":                 text("nri.pluginPath", func(c *config.Config) *string { return &c.NRI.PluginPath }),
	"nri.plugin_config_path":          text("nri.pluginConfigPath", func(c *config.Config) *string { return &c.NRI.PluginConfigPath }),
	"nri.disable_connections":         boolean("nri.disableConnections", func(c *config.Config) *bool { return &c.NRI.DisableConnections }),
	"nri.plugin_registration_timeout": duration("nri.pluginRegistrationTimeout", func(c *config.Config) *config.Duration { return &c.NRI.PluginRegistrationTimeout }),
	"nri.plugin_request_timeout":      duration("nri.pluginRequestTimeout", func(c *config.Config) *config.Duration { return &c.NRI.PluginRequestTimeout }),

	"tasks.blockio_config_file": text("blockIOConfigFile", func(c *config.Config) *string { return &c.BlockIOConfigFile }),
	"tasks.rdt_config_file":     text("rdtConfigFile", func(c *config.Config) *string { return &c.RDTConfigFile }),
})

func merge(maps ...map[string]rule) map[string]rule {
	out := map[string]rule{}
	for _, m := range maps {
		for k, r := range m {
			out[k] = r
		}
	}
	return out
}

// value reads a setting as a T.
func value[T any](s setting) (T, error) {
	v, ok := s.value.(T)
	if !ok {
		return v, fmt.Errorf("is %v: want a %T", s.value, v)
	}
	return v, nil
}

// text carries a string; an empty one leaves the default, as it does in containerd.
func text(to string, field func(*config.Config) *string) rule {
	return func(t *translator, s setting) error {
		v, err := value[string](s)
		if err == nil && v != "" {
			*field(&t.out.Config) = v
			t.carried(s, to)
		}
		return err
	}
}

func boolean(to string, field func(*config.Config) *bool) rule {
	return func(t *translator, s setting) error {
		v, err := value[bool](s)
		if err == nil {
			*field(&t.out.Config) = v
			t.carried(s, to)
		}
		return err
	}
}

func duration(to string, field func(*config.Config) *config.Duration) rule {
	return func(t *translator, s setting) error {
		v, err := value[string](s)
		if err != nil || v == "" {
			return err
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			return err
		}
		*field(&t.out.Config) = config.Duration(d)
		t.carried(s, to)
		return nil
	}
}

func list(to string, field func(*config.Config) *[]string) rule {
	return func(t *translator, s setting) error {
		v, err := stringList(s)
		if err == nil && len(v) > 0 {
			*field(&t.out.Config) = v
			t.carried(s, to)
		}
		return err
	}
}

func stringList(s setting) ([]string, error) {
	items, err := value[[]any](s)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, item := range items {
		v, err := value[string](setting{value: item})
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// unless notes a value that is neither containerd's default nor empty where that is nothing.
func unless(def any, why string) rule {
	return func(t *translator, s setting) error {
		if s.value != def && (def != nil || !empty(s.value)) {
			t.note(s, why)
		}
		return nil
	}
}

func ownContainerds(*translator, setting) error { return nil }

func sandboxImage(t *translator, s setting) error {
	if !empty(s.value) {
		t.note(s, "there is no pause container, and no image for it is pulled or pinned")
	}
	return nil
}

// pinned takes an image that is not the sandbox's.
func pinned(t *translator, s setting) error {
	v, err := value[string](s)
	if err == nil && v != "" {
		t.out.Config.Registry.PinnedImages = append(t.out.Config.Registry.PinnedImages, v)
		t.carried(s, "registry.pinnedImages")
	}
	return err
}

// onDemand is for the periods of collecting stats: 10 seconds, or nothing, by default.
func onDemand(t *translator, s setting) error {
	if s.value != int64(10) && !empty(s.value) {
		t.note(s, "stats are read when they are asked for")
	}
	return nil
}

// oldRuntime is for containerd.default_runtime and its like, which containerd itself no longer reads.
func oldRuntime(t *translator, s setting) error {
	if m, ok := s.value.(map[string]any); ok && !empty(m["runtime_type"]) {
		t.note(s, "is deprecated: name the runtime among containerd.runtimes")
	}
	return nil
}

func logLine(t *translator, s setting) error {
	v, err := value[int64](s)
	switch {
	case err != nil:
		return err
	case v <= 0:
		t.note(s, "lines without a limit would need memory without a limit: choose a maxContainerLogLineSize")
	default:
		t.out.Config.MaxContainerLogLineSize = int(v)
		t.carried(s, "maxContainerLogLineSize")
	}
	return nil
}

func streamHost(t *translator, s setting) (err error) {
	t.stream.host, err = value[string](s)
	return t.streaming(s, err)
}

func streamPort(t *translator, s setting) (err error) {
	t.stream.port, err = value[string](s)
	return t.streaming(s, err)
}

func (t *translator) streaming(s setting, err error) error {
	if err == nil {
		t.carried(s, "streaming.listen")
	}
	return err
}

func hostPort(host, port string) string { return net.JoinHostPort(strings.Trim(host, "[]"), port) }

func binDir(t *translator, s setting) error {
	v, err := value[string](s)
	if err == nil && v != "" {
		t.out.Config.CNI.BinDirs = []string{v}
		t.carried(s, "cni.binDirs")
	}
	return err
}

func disableNRI(t *translator, s setting) error {
	v, err := value[bool](s)
	if err != nil {
		return err
	}
	t.out.Config.NRI.Enabled = !v
	t.carried(s, "nri.enabled")
	if !v {
		t.note(s, "set it to true in containerd's file once userns-shim serves this node: one of both can have the socket")
	}
	return nil
}
