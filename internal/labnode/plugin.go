package labnode

import "fmt"

// PluginConfig are settings of containerd's CRI plugin.
type PluginConfig struct {
	// Sandbox is the image that keeps a sandbox's namespaces open.
	Sandbox string
	// CertsDir has the hosts.toml files of registries; empty is containerd's default.
	CertsDir string
	// CNIBinDir and CNIConfDir are where it finds its network.
	CNIBinDir, CNIConfDir string
}

// TOML is what ContainerdOptions.ExtraConfig takes. Some machines lack CAP_SYS_RESOURCE, so the plugin does not lower
// oom_score_adj.
func (p PluginConfig) TOML() string {
	text := fmt.Sprintf(`
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%q]
  conf_dir = %q
`, p.Sandbox, p.CNIBinDir, p.CNIConfDir)
	if p.CertsDir != "" {
		text += fmt.Sprintf("[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = %q\n", p.CertsDir)
	}
	return text
}
