package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

func (x *exam) checkDaemon(ctx context.Context) {
	x.daemon, x.down = x.Ports.Daemon(ctx)
	switch {
	case x.down != nil:
		x.add("daemon", Error, "systemctl start userns-shim, or: userns-shim serve", "userns-shim does not answer: %v", x.down)
	case x.daemon.Version != "" && x.daemon.Version != x.Version:
		x.add("daemon", Warning, "systemctl restart userns-shim", "the daemon that runs (process %d) is %s, and this program %s", x.daemon.PID, x.daemon.Version, x.Version)
	default:
		x.ok("daemon", "userns-shim %s, process %d", x.Version, x.daemon.PID)
	}
}

// capSysResource is the number of the capability that lifts limits of resources.
const capSysResource = 24

// leastFiles is what the daemon needs of open files: some for each pod and container.
const leastFiles = 16384

// checkLimits reads those of the daemon, which are also those of the pods' namespaces.
func (x *exam) checkLimits(context.Context) {
	if x.down != nil {
		x.add("limits", Unknown, "start the daemon first", "the limits of the daemon's service are known when it runs")
		return
	}
	text, err := x.read(fmt.Sprintf("/proc/%d/limits", x.daemon.PID))
	status, statusErr := x.read(fmt.Sprintf("/proc/%d/status", x.daemon.PID))
	if err != nil || statusErr != nil {
		x.add("limits", Unknown, "run doctor as root on the node itself", "the limits of process %d cannot be read", x.daemon.PID)
		return
	}
	before := len(x.findings)
	limits := hardLimits(text)
	if n := limits["Max open files"]; n < leastFiles {
		x.add("limits", Warning, "LimitNOFILE=1048576 in the unit of userns-shim", "userns-shim can open %d files, and keeps some open for each container", n)
	}
	if !hasCapability(status, capSysResource) {
		for _, l := range [][2]string{{"Max pending signals", "SIGPENDING"}, {"Max locked memory", "MEMLOCK"}, {"Max msgqueue size", "MSGQUEUE"}} {
			if n := limits[l[0]]; n != unlimited {
				x.add("limits", Warning, "Limit"+l[1]+"=infinity in the unit of userns-shim", "all processes of a pod with a user namespace share a limit of %d (%s), and userns-shim lacks CAP_SYS_RESOURCE to lift it", n, strings.ToLower(l[0][4:]))
			}
		}
	}
	if len(x.findings) == before {
		x.ok("limits", "the limits of the daemon's service do not limit pods")
	}
}

const unlimited = 1<<63 - 1

// hardLimits reads a file of the form of /proc/<pid>/limits, whose columns are apart by two spaces or more.
func hardLimits(text string) map[string]int64 {
	limits := map[string]int64{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, "  ")
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			continue
		}
		limits[name] = unlimited
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			limits[name] = n
		}
	}
	return limits
}

// hasCapability reads the effective ones of a file of the form of /proc/<pid>/status.
func hasCapability(status string, number uint) bool {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return err == nil && bits&(1<<number) != 0
		}
	}
	return false
}
