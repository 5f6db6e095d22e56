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

// harmless are all directives that the unit may have, because systemd.unit(5), systemd.exec(5), systemd.service(5),
// systemd.kill(5) and systemd.resource-control(5), up to systemd 257, say that they neither give the service a namespace of its own, in which mounts
// for pods would stay (ProtectSystem, PrivateTmp, BindLogSockets and dozens more), nor remove its directory of pins when it
// stops (RuntimeDirectory), nor take from it what privileged pods and plugins are given (CapabilityBoundingSet, NoNewPrivileges,
// DevicePolicy, SystemCallFilter, ...). It is a list of what is allowed, for that of the others grows with every systemd.
var harmless = map[string][]string{
	"Unit":    {"Description", "Documentation", "Wants", "After", "Before", "StartLimitIntervalSec"},
	"Install": {"WantedBy"},
	"Service": {
		"Type", "ExecStart", "Restart", "RestartSec", "KillMode", "OOMScoreAdjust", "UMask", "Delegate", "TasksMax", "FileDescriptorStoreMax",
		"LimitNOFILE", "LimitNPROC", "LimitCORE", "LimitMEMLOCK", "LimitSIGPENDING", "LimitMSGQUEUE",
		// Filters of system calls, which root of the host has without NoNewPrivileges, and which containers do not inherit from this service.
		"LockPersonality", "RestrictRealtime", "SystemCallArchitectures",
	},
}

func TestUnitLeavesTheServiceInTheHostsNamespaces(t *testing.T) {
	unit := readUnit(t)
	if len(unit) < 20 {
		t.Fatalf("the unit was read as %v", unit)
	}
	for _, d := range unit {
		if !slices.Contains(harmless[d.section], d.key) {
			t.Errorf("%s=%s in [%s] is not among the directives that are known to leave the service in the host's namespaces, with all that pods need", d.key, d.value, d.section)
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
