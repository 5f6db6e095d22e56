// Package config holds the configuration file of userns-shim: its types, defaults, strict
// parser and validation. It does not act on what it reads; cmd/userns-shim, its only
// importer, turns a Config into the options of each package.
package config

import (
	"time"
)

// The only version and kind that this release reads.
const (
	APIVersion = "userns-shim.io/v1alpha1"
	Kind       = "Config"
)

// Config is the whole file. Every field has a default, so an empty file works on an
// ordinary node.
type Config struct {
	// APIVersion is the version of the file's form. A file without one is taken for userns-shim.io/v1alpha1.
	// Example: userns-shim.io/v1alpha1
	APIVersion string `yaml:"apiVersion"`

	// Kind is Config.
	// Example: Config
	Kind string `yaml:"kind"`

	// Listen is the address of the CRI socket, unix:///path.
	// Example: unix:///run/userns-shim/userns-shim.sock
	Listen string `yaml:"listen"`
	// Root keeps what must outlive a reboot: the state database.
	// Example: /var/lib/userns-shim
	Root string `yaml:"root"`
	// State keeps what does not outlive a reboot: namespace pins, mounts, FIFOs, the admin socket.
	// Example: /run/userns-shim
	State string `yaml:"state"`
	// MetricsListen serves /metrics and /statusz over HTTP to whoever reaches it; empty turns them off.
	// Example: 127.0.0.1:9464
	MetricsListen string `yaml:"metricsListen"`

	// SandboxInit is the path of userns-shim-init, which runs in pods whose containers share a
	// PID namespace; empty takes the one beside userns-shim.
	// Example: /usr/libexec/userns-shim-init
	SandboxInit string `yaml:"sandboxInit"`

	Containerd Containerd `yaml:"containerd"`
	CNI        CNI        `yaml:"cni"`
	Registry   Registry   `yaml:"registry"`
	Streaming  Streaming  `yaml:"streaming"`

	// CgroupDriver is auto, cgroupfs or systemd. Auto means systemd where the host runs systemd
	// on cgroup v2, and cgroupfs elsewhere.
	// Example: systemd
	CgroupDriver CgroupDriver `yaml:"cgroupDriver"`
	// RestrictOOMScoreAdj raises a container's oom_score_adj to that of userns-shim where it asks
	// for less, for nodes on which userns-shim lacks CAP_SYS_RESOURCE.
	// Example: true
	RestrictOOMScoreAdj bool `yaml:"restrictOOMScoreAdj"`
	// CDISpecDirs are searched for files of the Container Device Interface; a later one wins.
	// Example: [/etc/cdi]
	CDISpecDirs []string `yaml:"cdiSpecDirs"`
	// BlockIOConfigFile defines the block I/O classes that annotations of pods name, in the form of goresctrl;
	// empty means that there are none.
	// Example: /etc/userns-shim/blockio.yaml
	BlockIOConfigFile string `yaml:"blockIOConfigFile,omitempty"`
	// RDTConfigFile defines the classes of cache and memory bandwidth (Intel RDT) that annotations of pods name, in
	// the form of goresctrl; empty means that there are none.
	// Example: /etc/userns-shim/rdt.yaml
	RDTConfigFile string `yaml:"rdtConfigFile,omitempty"`
	// MaxContainerLogLineSize is the length in bytes at which a line of container output is
	// split into partial lines.
	// Unit: bytes.
	// Example: 32768
	MaxContainerLogLineSize int `yaml:"maxContainerLogLineSize"`
	// EnableUnprivilegedPorts lets processes without CAP_NET_BIND_SERVICE listen below port 1024
	// in pods that do not use the host's network.
	// Example: false
	EnableUnprivilegedPorts bool `yaml:"enableUnprivilegedPorts"`
	// EnableUnprivilegedICMP lets processes without CAP_NET_RAW send ICMP echo requests in pods
	// that do not use the host's network.
	// Example: false
	EnableUnprivilegedICMP bool `yaml:"enableUnprivilegedICMP"`
	// RestoreCheckpointImages lets pods run images that hold a checkpoint. CRIU then does, as the host's
	// root, what such an image says: users, capabilities and mounts of its processes come from it. Whoever
	// may name an image in a pod is trusted as root is.
	// Example: true
	RestoreCheckpointImages bool `yaml:"restoreCheckpointImages"`

	// DefaultRuntimeHandler serves pods that name no runtime handler.
	// Example: crun
	DefaultRuntimeHandler string `yaml:"defaultRuntimeHandler"`
	// RuntimeHandlers are the handlers that a RuntimeClass can name.
	// Example: {runc: {}, userns: {userNamespaces: always}}
	RuntimeHandlers map[string]RuntimeHandler `yaml:"runtimeHandlers"`

	NRI          NRI          `yaml:"nri"`
	IDPool       IDPool       `yaml:"idPool"`
	UserDatabase UserDatabase `yaml:"userDatabase"`
}

// UserDatabase configures the names that the pool's host ids have on the host (userns-<pod>-<id>), which ps and ls
// show where nss-systemd is installed.
type UserDatabase struct {
	// SocketDir is where systemd looks for services that know users and groups. Nothing is served where it does
	// not exist; empty turns names off. Every user of the host can look names up, and so learns what the pods are called.
	// Example: /run/systemd/userdb
	SocketDir string `yaml:"socketDir"`
}

// NRI configures plugins of the Node Resource Interface. containerd has an NRI of its own, on by default at the
// same places: turn that off where plugins are to see the pods that run here.
type NRI struct {
	// Enabled lets plugins look on at pods and containers and change them.
	// Example: false
	Enabled bool `yaml:"enabled"`
	// SocketPath is where plugins connect. A socket that another process serves is left to it.
	// Example: /var/run/nri/nri.sock
	SocketPath string `yaml:"socketPath"`
	// DisableConnections lets no plugin connect; those of pluginPath are started all the same.
	// Example: true
	DisableConnections bool `yaml:"disableConnections"`
	// PluginPath holds plugins that are started with userns-shim.
	// Example: /opt/nri/plugins
	PluginPath string `yaml:"pluginPath"`
	// PluginConfigPath holds their configuration files.
	// Example: /etc/nri/conf.d
	PluginConfigPath string `yaml:"pluginConfigPath"`
	// PluginRegistrationTimeout is how long a plugin may take to register.
	// Example: 5s
	PluginRegistrationTimeout Duration `yaml:"pluginRegistrationTimeout"`
	// PluginRequestTimeout is how long a plugin may take to answer; one that takes longer is disconnected.
	// Example: 2s
	PluginRequestTimeout Duration `yaml:"pluginRequestTimeout"`
}

// Containerd says where the engine is.
type Containerd struct {
	// Address is the path of containerd's socket.
	// Example: /run/containerd/containerd.sock
	Address string `yaml:"address"`
	// Namespace is the containerd namespace of images, containers and snapshots.
	// Example: k8s.io
	Namespace string `yaml:"namespace"`
	// Snapshotter is the default for runtime handlers that name none.
	// Example: native
	Snapshotter string `yaml:"snapshotter"`
}

// CNI says where network plugins and their configuration are.
type CNI struct {
	// BinDirs are searched for plugins, in order.
	// Example: [/opt/cni/bin, /usr/lib/cni]
	BinDirs []string `yaml:"binDirs"`
	// ConfDir is looked at for each pod; its first configuration by name is the pod network.
	// Example: /etc/cni/net.d
	ConfDir string `yaml:"confDir"`
}

// Registry configures where images come from.
type Registry struct {
	// ConfigPath is a directory of hosts.toml directories, as containerd has them, or several
	// separated by colons; empty means none.
	// Example: /etc/containerd/certs.d:/etc/docker/certs.d
	ConfigPath string `yaml:"configPath"`
	// PullProgressTimeout cancels a pull that receives no byte for so long; 0s never does.
	// Example: 10m
	PullProgressTimeout Duration `yaml:"pullProgressTimeout"`
	// PinnedImages are images that kubelet's garbage collection leaves alone, whoever pulled them and
	// when: references such as registry.k8s.io/pause:3.10, in which a * stands for any characters,
	// slashes included (registry.example/node/*). An image with containerd's label
	// io.cri-containerd.pinned=pinned is pinned as well.
	// Example: ["registry.k8s.io/pause:*", "registry.example/node/*"]
	PinnedImages []string `yaml:"pinnedImages,omitempty"`
}

// Streaming configures the server behind exec, attach and port-forward.
type Streaming struct {
	// Listen is the address that kubelet is told to connect to; port 0 takes a free one.
	// Example: 127.0.0.1:10010
	Listen string `yaml:"listen"`
	// IdleTimeout closes a stream that carries nothing for so long.
	// Example: 30m
	IdleTimeout Duration `yaml:"idleTimeout"`
}

// CgroupDriver names who makes cgroups.
type CgroupDriver string

// The cgroup drivers.
const (
	CgroupDriverAuto     CgroupDriver = "auto"
	CgroupDriverCgroupfs CgroupDriver = "cgroupfs"
	CgroupDriverSystemd  CgroupDriver = "systemd"
)

// UserNamespacePolicy says which pods of a runtime handler get a user namespace.
type UserNamespacePolicy string

// The policies: the pods that ask for one, every pod, or none (asking is then an error).
const (
	UserNamespacesOptIn  UserNamespacePolicy = "optIn"
	UserNamespacesAlways UserNamespacePolicy = "always"
	UserNamespacesNever  UserNamespacePolicy = "never"
)

// RuntimeHandler is one way to run containers. Changes concern containers that are created from then on.
type RuntimeHandler struct {
	// Runtime is containerd's name of the shim, or the path of its program. It has to be
	// containerd's shim for OCI runtimes or one that takes the same options.
	// Example: io.containerd.runc.v2
	Runtime string `yaml:"runtime"`
	// BinaryName is the OCI runtime that the shim calls, a name on containerd's PATH or a path: runc or
	// crun, for two. What it can do is asked of the program itself, by its command features.
	// Example: /usr/bin/crun
	BinaryName string `yaml:"binaryName"`
	// Snapshotter overrides containerd.snapshotter for this handler.
	// Example: native
	Snapshotter string `yaml:"snapshotter,omitempty"`
	// UserNamespaces is optIn, always or never. Always gives a user namespace to pods that do not ask
	// for one too, except those that use the host's PID or IPC namespace.
	// Example: always
	UserNamespaces UserNamespacePolicy `yaml:"userNamespaces"`
	// Root is the directory in which the OCI runtime keeps its state; empty takes the shim's own,
	// /run/containerd/runc.
	// Example: /run/crun
	Root string `yaml:"root,omitempty"`
	// ShimCgroup is a cgroup that exists, as a path below the hierarchies' roots, for shims; empty
	// leaves them in containerd's.
	// Example: /system.slice/shims
	ShimCgroup string `yaml:"shimCgroup,omitempty"`
	// PodAnnotations are the annotations of a pod that the OCI runtime gets to see, by name; a * stands for
	// any characters but a slash. Without them it sees none: some give more than the pod was granted, as run.oci.*
	// of crun.
	// Example: [example.com/*]
	PodAnnotations []string `yaml:"podAnnotations,omitempty"`
	// ContainerAnnotations are the same for the annotations of a container.
	// Example: [example.com/*]
	ContainerAnnotations []string `yaml:"containerAnnotations,omitempty"`
	// PrivilegedWithoutHostDevices keeps the host's devices out of privileged containers, which get
	// those that every container has and those asked for.
	// Example: true
	PrivilegedWithoutHostDevices bool `yaml:"privilegedWithoutHostDevices,omitempty"`
	// MaxIDsPerPod is how many host ids a pod may ask for by the annotation userns-shim.io/ids, a multiple
	// of 65536; 0 refuses the annotation.
	// Unit: ids.
	// Example: 131072
	MaxIDsPerPod uint32 `yaml:"maxIDsPerPod,omitempty"`
	// Reservations are the named reservations of host ids that a pod may join by the annotation
	// userns-shim.io/reservation; a * stands for any characters. Pods in one reservation can reach what is
	// the others', so let only those use such a handler who may.
	// Example: [team-a-*]
	Reservations []string `yaml:"reservations,omitempty"`
	// PodsPerShim puts up to so many pods into one shim process. A shim of its own takes 4 MiB for each
	// pod, 16 pods in one less than 1 MiB each; when such a shim dies, the containers of all its pods do.
	// Unit: pods.
	// Example: 16
	PodsPerShim int `yaml:"podsPerShim"`
}

// Duration is a time.Duration in Go's spelling ("5m").
type Duration time.Duration
