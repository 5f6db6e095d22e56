package config

import (
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// idsPerRange is the granularity of the pool: kubelet's userNamespaces.idsPerPod is a multiple of it.
const idsPerRange = 65536

// leastForecast keeps the forecast's samples from being taken all the time.
const leastForecast = 10 * time.Second

// Validate reports everything that is wrong, each with the name of its field.
func (c Config) Validate() error {
	return errors.Join(
		oneOf("apiVersion", c.APIVersion, APIVersion),
		oneOf("kind", c.Kind, Kind),
		c.validatePaths(),
		oneOf("cgroupDriver", c.CgroupDriver, CgroupDriverAuto, CgroupDriverCgroupfs, CgroupDriverSystemd),
		positive("maxContainerLogLineSize", c.MaxContainerLogLineSize),
		c.validateHandlers(),
		c.Registry.validate(),
		c.NRI.validate(),
		c.IDPool.validate(),
	)
}

func (n NRI) validate() error {
	return errors.Join(
		absolute("nri.socketPath", n.SocketPath),
		absolute("nri.pluginPath", n.PluginPath),
		absolute("nri.pluginConfigPath", n.PluginConfigPath),
		positive("nri.pluginRegistrationTimeout", int(n.PluginRegistrationTimeout)),
		positive("nri.pluginRequestTimeout", int(n.PluginRequestTimeout)),
	)
}

func (c Config) validatePaths() error {
	errs := []error{
		absolute("root", c.Root),
		absolute("state", c.State),
		absolute("containerd.address", c.Containerd.Address),
		absolute("cni.confDir", c.CNI.ConfDir),
		hostPort("metricsListen", c.MetricsListen, true),
		hostPort("streaming.listen", c.Streaming.Listen, false),
		nonEmpty("containerd.namespace", c.Containerd.Namespace),
		nonEmpty("containerd.snapshotter", c.Containerd.Snapshotter),
	}
	for field, file := range map[string]string{
		"sandboxInit": c.SandboxInit, "blockIOConfigFile": c.BlockIOConfigFile, "rdtConfigFile": c.RDTConfigFile,
		"userDatabase.socketDir": c.UserDatabase.SocketDir,
	} {
		if file != "" {
			errs = append(errs, absolute(field, file))
		}
	}
	if socket, ok := strings.CutPrefix(c.Listen, "unix://"); !ok || !filepath.IsAbs(socket) {
		errs = append(errs, problem("listen", "is %q: want unix:///path", c.Listen))
	}
	if len(c.CNI.BinDirs) == 0 {
		errs = append(errs, problem("cni.binDirs", "is empty: name the directory of the CNI plugins"))
	}
	for i, dir := range c.CNI.BinDirs {
		errs = append(errs, absolute(indexed("cni.binDirs", i), dir))
	}
	for i, dir := range c.CDISpecDirs {
		errs = append(errs, absolute(indexed("cdiSpecDirs", i), dir))
	}
	return errors.Join(errs...)
}

func (c Config) validateHandlers() error {
	var errs []error
	if _, ok := c.RuntimeHandlers[c.DefaultRuntimeHandler]; !ok {
		errs = append(errs, problem("defaultRuntimeHandler", "is %q, which runtimeHandlers does not have", c.DefaultRuntimeHandler))
	}
	for name, h := range c.RuntimeHandlers {
		errs = append(errs, handlerName(name), h.validate("runtimeHandlers."+name))
	}
	return errors.Join(errs...)
}

// handlerName holds what Kubernetes demands of RuntimeClass.handler, a DNS label.
func handlerName(name string) error {
	if regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`).MatchString(name) {
		return nil
	}
	return problem("runtimeHandlers", "has the name %q: want at most 63 lower-case letters, digits and dashes, as in RuntimeClass.handler", name)
}

func (h RuntimeHandler) validate(field string) error {
	errs := []error{
		shimName(field+".runtime", h.Runtime),
		nonEmpty(field+".binaryName", h.BinaryName),
		oneOf(field+".userNamespaces", h.UserNamespaces, UserNamespacesOptIn, UserNamespacesAlways, UserNamespacesNever),
		positive(field+".podsPerShim", h.PodsPerShim),
	}
	if h.MaxIDsPerPod%idsPerRange != 0 {
		errs = append(errs, problem(field+".maxIDsPerPod", "is %d: want a multiple of %d", h.MaxIDsPerPod, idsPerRange))
	}
	if h.UserNamespaces == UserNamespacesNever && (h.MaxIDsPerPod > 0 || len(h.Reservations) > 0) {
		errs = append(errs, problem(field, "has maxIDsPerPod or reservations, and userNamespaces: never"))
	}
	if strings.Contains(h.BinaryName, "/") {
		errs = append(errs, absolute(field+".binaryName", h.BinaryName))
	}
	for name, dir := range map[string]string{".root": h.Root, ".shimCgroup": h.ShimCgroup} {
		if dir != "" {
			errs = append(errs, absolute(field+name, dir))
		}
	}
	return errors.Join(append(errs,
		namePatterns(field+".podAnnotations", "an annotation", h.PodAnnotations),
		namePatterns(field+".containerAnnotations", "an annotation", h.ContainerAnnotations),
		namePatterns(field+".reservations", "a reservation", h.Reservations))...)
}

// namePatterns takes names of what, with * for any characters.
func namePatterns(field, what string, patterns []string) error {
	var errs []error
	for i, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			errs = append(errs, problem(indexed(field, i), "is %q: want the name of %s, with * for any characters", pattern, what))
		}
	}
	return errors.Join(errs...)
}

// shimName takes what containerd makes the name of a shim's program of, or its path.
func shimName(field, name string) error {
	if filepath.IsAbs(name) || regexp.MustCompile(`^[a-zA-Z0-9]+(\.[a-zA-Z0-9_-]+){2,}$`).MatchString(name) {
		return nil
	}
	return problem(field, "is %q: want a name such as io.containerd.runc.v2, or the absolute path of a shim", name)
}

func (r Registry) validate() error {
	var errs []error
	for _, dir := range filepath.SplitList(r.ConfigPath) {
		errs = append(errs, absolute("registry.configPath", dir))
	}
	for i, pattern := range r.PinnedImages {
		if strings.Trim(pattern, "*") == "" || strings.ContainsAny(pattern, " \t\n") {
			errs = append(errs, problem(indexed("registry.pinnedImages", i), "is %q: want an image, with * for any characters", pattern))
		}
	}
	if r.PullProgressTimeout < 0 {
		errs = append(errs, problem("registry.pullProgressTimeout", "is negative"))
	}
	return errors.Join(errs...)
}

func (p IDPool) validate() error {
	errs := []error{
		oneOf("idPool.claims", p.Claims, ClaimsStrict, ClaimsPermissive),
		oneOf("idPool.onConflict", p.OnConflict, ConflictRemap, ConflictReject),
	}
	if p.Quarantine < 0 {
		errs = append(errs, problem("idPool.quarantine", "is negative"))
	}
	if p.ReconcileInterval < 0 {
		errs = append(errs, problem("idPool.reconcileInterval", "is negative"))
	}
	if time.Duration(p.ForecastWindow) < leastForecast {
		errs = append(errs, problem("idPool.forecastWindow", "is %s: want %s at least", time.Duration(p.ForecastWindow), leastForecast))
	}
	if p.ScanInterval < 0 {
		errs = append(errs, problem("idPool.scanInterval", "is negative"))
	}
	for i, e := range p.Extents {
		errs = append(errs, e.validate(indexed("idPool.extents", i)))
	}
	for i, e := range p.KubeletExtents.Extents {
		errs = append(errs, e.validate(indexed("idPool.kubeletExtents", i)))
	}
	if len(p.Extents) > 0 && !slices.ContainsFunc(p.Extents, Extent.usable) {
		errs = append(errs, problem("idPool.extents",
			"hold nothing for pods: the %d ids from %d on are systemd's, and those from %d on the kernel cannot map", idsPerRange, foreignID, lastRangeID))
	}
	return errors.Join(errs...)
}

// Ids of ranges that no pod is given, as idpool has them.
const (
	foreignID   = 2147352576 // systemd's foreign range
	lastRangeID = 1<<32 - idsPerRange
)

// usable tells whether a pod can be given a range of e, or e is wrong for another reason, which is told of it.
func (e Extent) usable() bool {
	for id := uint64(e.Start); id < uint64(e.Start)+e.Length; id += idsPerRange {
		if id != foreignID && id != lastRangeID {
			return true
		}
	}
	return e.Length == 0
}

func (e Extent) validate(field string) error {
	switch {
	case e.Length == 0 || e.Length%idsPerRange != 0:
		return problem(field+".length", "is %d: want a multiple of %d", e.Length, idsPerRange)
	case e.Start%idsPerRange != 0:
		return problem(field+".start", "is %d: want a multiple of %d", e.Start, idsPerRange)
	case e.Start < idsPerRange:
		return problem(field+".start", "is %d: ids below %d belong to the host", e.Start, idsPerRange)
	case e.Length > 1<<32 || uint64(e.Start)+e.Length > 1<<32:
		return problem(field, "has %d ids from %d on: ids have 32 bits", e.Length, e.Start)
	}
	return nil
}

func oneOf[T ~string](field string, got T, want ...T) error {
	if slices.Contains(want, got) {
		return nil
	}
	return problem(field, "is %q: want one of %q", got, want)
}

func absolute(field, name string) error {
	if filepath.IsAbs(name) {
		return nil
	}
	return problem(field, "is %q: want an absolute path", name)
}

func nonEmpty(field, value string) error {
	if value != "" {
		return nil
	}
	return problem(field, "is empty")
}

func positive(field string, n int) error {
	if n > 0 {
		return nil
	}
	return problem(field, "is %d: want a positive number", n)
}

func hostPort(field, addr string, mayBeEmpty bool) error {
	if addr == "" && mayBeEmpty {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return problem(field, "is no host:port: %w", err)
	}
	return nil
}

func indexed(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
