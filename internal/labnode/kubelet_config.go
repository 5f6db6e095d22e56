package labnode

import (
	"maps"
	"path/filepath"
)

// config is a KubeletConfiguration: kubelet's defaults wherever the machine and the tests allow.
func (k *Kubelet) config() map[string]any {
	config := map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"containerRuntimeEndpoint": "unix://" + k.node.Daemon.Socket,
		"staticPodPath":            k.Manifests,
		"fileCheckFrequency":       "1s", // the directory is watched, too
		"podLogsDir":               k.Logs,
		"volumePluginDir":          filepath.Join(k.dir(), "volumeplugins"),
		"resolvConf":               "",   // a lab node has no name server
		"volumeStatsAggPeriod":     "5s", // a minute by default, which tests would wait for

		"address":        "127.0.0.1",
		"port":           kubeletPort,
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":  map[string]any{"mode": "AlwaysAllow"},

		"cgroupDriver": "cgroupfs",
		"cgroupRoot":   k.node.Cgroup(),
		"failCgroupV1": false,
		"failSwapOn":   false,

		// What fills the machine's disk besides is not the tests'.
		"evictionHard":                map[string]string{"memory.available": "100Mi"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}
	if canLower, err := canLowerOOMScore(); err != nil || !canLower {
		config["oomScoreAdj"] = 0 // the default is -999
	}
	maps.Copy(config, k.opts.Config)
	return config
}
