package config

import "time"

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		APIVersion:    APIVersion,
		Kind:          Kind,
		Listen:        "unix:///run/userns-shim/userns-shim.sock",
		Root:          "/var/lib/userns-shim",
		State:         "/run/userns-shim",
		MetricsListen: "127.0.0.1:9464",
		Containerd: Containerd{
			Address:     "/run/containerd/containerd.sock",
			Namespace:   "k8s.io",
			Snapshotter: "overlayfs",
		},
		CNI:      CNI{BinDirs: []string{"/opt/cni/bin"}, ConfDir: "/etc/cni/net.d"},
		Registry: Registry{ConfigPath: "/etc/containerd/certs.d", PullProgressTimeout: Duration(5 * time.Minute)},
		Streaming: Streaming{
			Listen:      "127.0.0.1:0",
			IdleTimeout: Duration(4 * time.Hour),
		},
		CgroupDriver:            CgroupDriverAuto,
		CDISpecDirs:             []string{"/etc/cdi", "/var/run/cdi"},
		MaxContainerLogLineSize: 16 * 1024,
		EnableUnprivilegedPorts: true,
		EnableUnprivilegedICMP:  true,
		DefaultRuntimeHandler:   "runc",
		RuntimeHandlers: map[string]RuntimeHandler{
			"runc": defaultHandler(),
		},
		NRI: NRI{
			Enabled:                   true,
			SocketPath:                "/var/run/nri/nri.sock",
			PluginPath:                "/opt/nri/plugins",
			PluginConfigPath:          "/etc/nri/conf.d",
			PluginRegistrationTimeout: Duration(5 * time.Second),
			PluginRequestTimeout:      Duration(2 * time.Second),
		},
		IDPool: IDPool{
			KubeletExtents: KubeletExtents{Auto: true},
			Claims:         ClaimsStrict,
			OnConflict:     ConflictRemap,
			Quarantine:     Duration(5 * time.Minute),
			ForecastWindow: Duration(time.Hour),

			ReconcileInterval: Duration(5 * time.Minute),
			ScanInterval:      Duration(5 * time.Minute),
		},
		UserDatabase: UserDatabase{SocketDir: "/run/systemd/userdb"},
	}
}

func defaultHandler() RuntimeHandler {
	return RuntimeHandler{
		Runtime:        "io.containerd.runc.v2",
		BinaryName:     "runc",
		UserNamespaces: UserNamespacesOptIn,
		PodsPerShim:    1,
	}
}
