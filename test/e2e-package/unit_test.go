package e2epackage

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unitFile is the unit as packages install it.
const unitFile = "../../packaging/userns-shim.service"

// directive is one line of a unit.
type directive struct{ section, key, value string }

func readUnit(t *testing.T) []directive {
	t.Helper()
	file, err := os.Open(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out []directive
	section := ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out = append(out, directive{section, key, value})
		} else if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
		}
	}
	return out
}

// ownNamespace are the directives of systemd.exec(5), up to systemd 258, that make a mount namespace for the service
// or take it away from the host's other namespaces, and those that remove its directory of pins when it stops.
var ownNamespace = []string{
	"BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExtensionDirectories", "ExtensionImages",
	"IPCNamespacePath", "ImportCredential", "InaccessiblePaths", "LoadCredential", "LoadCredentialEncrypted",
	"LogNamespace", "MountAPIVFS", "MountFlags", "MountImages", "NetworkNamespacePath", "NoExecPaths", "PrivateBPF",
	"PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivatePIDs", "PrivateTmp", "PrivateUsers", "ProcSubset",
	"ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
	"ProtectKernelTunables", "ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RestrictNamespaces",
	"RootDirectory", "RootEphemeral", "RootImage", "RootMStack", "RuntimeDirectory", "SetCredential", "SetCredentialEncrypted",
	"TemporaryFileSystem", "UserNamespacePath",
}

// takesAway are directives that would keep the service from what it gives to privileged pods, from setuid files of image volumes,
// and from what plugins need.
var takesAway = []string{
	"AmbientCapabilities", "CapabilityBoundingSet", "DeviceAllow", "DevicePolicy", "IPAddressDeny", "MemoryDenyWriteExecute",
	"NoNewPrivileges", "RestrictAddressFamilies", "RestrictFileSystems", "RestrictSUIDSGID", "SystemCallFilter", "User", "Group",
}

func TestUnitLeavesTheServiceInTheHostsNamespaces(t *testing.T) {
	for _, d := range readUnit(t) {
		if slices.Contains(ownNamespace, d.key) {
			t.Errorf("%s=%s gives the service a namespace of its own, in which mounts for pods would stay", d.key, d.value)
		}
		if slices.Contains(takesAway, d.key) {
			t.Errorf("%s=%s takes from the service what it needs for pods", d.key, d.value)
		}
	}
}

func TestUnitSettings(t *testing.T) {
	got := readUnit(t)
	for _, want := range []directive{
		{"Service", "Type", "notify"},
		{"Service", "KillMode", "process"}, // pods' programs, and plugins', outlive it
		{"Service", "Restart", "always"},
		{"Unit", "StartLimitIntervalSec", "0"}, // always means always
		{"Service", "Delegate", "yes"},
		{"Service", "TasksMax", "infinity"},
		{"Service", "LimitMEMLOCK", "infinity"},
		{"Service", "LimitSIGPENDING", "infinity"},
		{"Service", "LimitMSGQUEUE", "infinity"},
		{"Unit", "Wants", "containerd.service"},
		{"Unit", "Before", "kubelet.service"},
		{"Service", "ExecStart", "/usr/bin/userns-shim serve --config=/etc/userns-shim/config.yaml"},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s=%s in [%s]", want.key, want.value, want.section)
		}
	}
}

// TestUnitsDescriptorStoreFitsTheEnvironment holds the limit of execve(2) for one variable, 32 pages: systemd hands the names
// of all stored descriptors back in LISTEN_FDNAMES, and could not start the service with more.
func TestUnitsDescriptorStoreFitsTheEnvironment(t *testing.T) {
	const (
		longest = 32 * 4096
		name    = 64 // a container's id
	)
	i := slices.IndexFunc(readUnit(t), func(d directive) bool { return d.key == "FileDescriptorStoreMax" })
	if i < 0 {
		t.Fatal("no FileDescriptorStoreMax: output of containers that exit during a restart would be lost")
	}
	most, err := strconv.Atoi(readUnit(t)[i].value)
	if err != nil {
		t.Fatal(err)
	}
	if size := len("LISTEN_FDNAMES=") + most*(name+len(":")); size > longest {
		t.Errorf("%d descriptors' names take %d bytes, more than %d", most, size, longest)
	}
	if most < 2*500 {
		t.Errorf("%d descriptors do not suffice for a node of 500 containers", most)
	}
}
