package doctor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// kubelet is what is known of the one that runs here.
type kubelet struct {
	running bool
	flags   map[string]string
	config  kubeletConfig
}

// kubeletConfig are the fields of its KubeletConfiguration that matter.
type kubeletConfig struct {
	ContainerRuntimeEndpoint string          `json:"containerRuntimeEndpoint"`
	CgroupDriver             string          `json:"cgroupDriver"`
	FeatureGates             map[string]bool `json:"featureGates"`
	UserNamespaces           struct {
		IDsPerPod *int64 `json:"idsPerPod"`
	} `json:"userNamespaces"`
}

// kubeletConfigFile is kubeadm's, for a kubelet that is told of none.
const kubeletConfigFile = "/var/lib/kubelet/config.yaml"

func (k kubelet) dir() string {
	if dir := k.flags["root-dir"]; dir != "" {
		return dir
	}
	return kubeletRoot
}

func (k kubelet) endpoint() string {
	if e := k.flags["container-runtime-endpoint"]; e != "" {
		return e
	}
	return k.config.ContainerRuntimeEndpoint
}

func (k kubelet) idsPerPod() uint32 {
	if n := k.config.UserNamespaces.IDsPerPod; n != nil && *n > 0 && *n < 1<<32 {
		return uint32(*n)
	}
	return idpool.Unit
}

func (x *exam) checkKubelet(context.Context) {
	k := x.kubelet
	if !k.running && k.config.CgroupDriver == "" && k.endpoint() == "" {
		x.add("kubelet", Info, "", "no kubelet runs here, and %s tells nothing of one", kubeletConfigFile)
		return
	}
	before := len(x.findings)
	if e := k.endpoint(); e != "" && strings.TrimPrefix(e, "unix://") != strings.TrimPrefix(x.Node.Listen, "unix://") {
		x.add("kubelet", Warning, "containerRuntimeEndpoint: "+x.Node.Listen+" in kubelet's configuration, and restart kubelet", "kubelet uses the runtime at %s, and userns-shim listens at %s", e, x.Node.Listen)
	}
	if on, set := k.config.FeatureGates["UserNamespacesSupport"]; set && !on {
		x.add("kubelet", Error, "take UserNamespacesSupport out of featureGates in kubelet's configuration", "kubelet is told to refuse user namespaces")
	}
	driver := k.config.CgroupDriver
	if flag := k.flags["cgroup-driver"]; flag != "" {
		driver = flag
	}
	if driver != "" && driver != x.driver() {
		x.add("kubelet", Error, "cgroupDriver: "+driver+" in the configuration of userns-shim", "kubelet's cgroup driver is %s, and that of userns-shim %s: pods' limits would be set in the wrong place", driver, x.driver())
	}
	if n := k.config.UserNamespaces.IDsPerPod; n != nil && (*n <= 0 || *n%idpool.Unit != 0 || *n >= 1<<32) {
		x.add("kubelet", Error, "userNamespaces: {idsPerPod: 65536} in kubelet's configuration", "kubelet's idsPerPod is %d: it does not start with what is no multiple of 65536", *n)
	}
	if len(x.findings) == before {
		x.ok("kubelet", "its settings go with those of userns-shim")
	}
}

// findKubelet reads the command line and the configuration of the kubelet that runs. It cannot fail: what is not found is not there.
func (x *exam) findKubelet() kubelet {
	k := kubelet{flags: map[string]string{}}
	paths, _ := filepath.Glob(filepath.Join(x.FS, "/proc/[0-9]*/cmdline")) // the pattern is well-formed
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00")
		if filepath.Base(args[0]) == "kubelet" {
			k.running, k.flags = true, flagsOf(args[1:])
			break
		}
	}
	file := k.flags["config"]
	if file == "" {
		file = kubeletConfigFile
	}
	if text, err := x.read(file); err == nil {
		if err := yaml.Unmarshal([]byte(text), &k.config); err != nil {
			x.add("kubelet", Warning, "kubelet's log says what is wrong with it", "%s cannot be read: %v", file, err)
		}
	}
	return k
}

// flagsOf reads --name=value and --name value.
func flagsOf(args []string) map[string]string {
	flags := map[string]string{}
	for i, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "--")
		if !isFlag {
			continue
		}
		name, value, joined := strings.Cut(name, "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		flags[name] = value
	}
	return flags
}
