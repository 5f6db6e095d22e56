package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// idsPerRange is the granularity of the pool: kubelet's userNamespaces.idsPerPod is a multiple of it.
const idsPerRange = 65536

// Validate reports everything that is wrong, each with the name of its field.
func (c Config) Validate() error {
	return errors.Join(
		oneOf("apiVersion", c.APIVersion, APIVersion),
		oneOf("kind", c.Kind, Kind),
		c.validatePaths(),
		oneOf("cgroupDriver", c.CgroupDriver, CgroupDriverAuto, CgroupDriverCgroupfs, CgroupDriverSystemd),
		positive("maxContainerLogLineSize", c.MaxContainerLogLineSize),
		c.validateHandlers(),
		c.IDPool.validate(),
	)
}

func (c Config) validatePaths() error {
	errs := []error{
		absolute("root", c.Root),
		absolute("state", c.State),
		absolute("containerd.address", c.Containerd.Address),
		absolute("cni.confDir", c.CNI.ConfDir),
		absolute("registry.configPath", c.Registry.ConfigPath),
		hostPort("metricsListen", c.MetricsListen, true),
		hostPort("streaming.listen", c.Streaming.Listen, false),
		nonEmpty("containerd.namespace", c.Containerd.Namespace),
		nonEmpty("containerd.snapshotter", c.Containerd.Snapshotter),
	}
	for field, path := range map[string]string{
		"sandboxInit": c.SandboxInit, "blockIOConfigFile": c.BlockIOConfigFile, "rdtConfigFile": c.RDTConfigFile,
	} {
		if path != "" {
			errs = append(errs, absolute(field, path))
		}
	}
	if path, ok := strings.CutPrefix(c.Listen, "unix://"); !ok || !filepath.IsAbs(path) {
		errs = append(errs, fmt.Errorf("listen is %q: want unix:///path", c.Listen))
	}
	if len(c.CNI.BinDirs) == 0 {
		errs = append(errs, errors.New("cni.binDirs is empty: name the directory of the CNI plugins"))
	}
	for i, dir := range c.CNI.BinDirs {
		errs = append(errs, absolute(fmt.Sprintf("cni.binDirs[%d]", i), dir))
	}
	for i, dir := range c.CDISpecDirs {
		errs = append(errs, absolute(fmt.Sprintf("cdiSpecDirs[%d]", i), dir))
	}
	return errors.Join(errs...)
}

func (c Config) validateHandlers() error {
	var errs []error
	if _, ok := c.RuntimeHandlers[c.DefaultRuntimeHandler]; !ok {
		errs = append(errs, fmt.Errorf("defaultRuntimeHandler is %q, which runtimeHandlers does not have", c.DefaultRuntimeHandler))
	}
	for name, h := range c.RuntimeHandlers {
		field := "runtimeHandlers." + name
		errs = append(errs,
			nonEmpty("name of a runtime handler", name),
			nonEmpty(field+".runtime", h.Runtime),
			nonEmpty(field+".binaryName", h.BinaryName),
			oneOf(field+".userNamespaces", h.UserNamespaces, UserNamespacesOptIn, UserNamespacesAlways, UserNamespacesNever),
			positive(field+".podsPerShim", h.PodsPerShim))
	}
	return errors.Join(errs...)
}

func (p IDPool) validate() error {
	errs := []error{
		oneOf("idPool.claims", p.Claims, ClaimsStrict, ClaimsPermissive),
		oneOf("idPool.onConflict", p.OnConflict, ConflictRemap, ConflictReject),
	}
	if p.Quarantine < 0 {
		errs = append(errs, fmt.Errorf("idPool.quarantine is negative"))
	}
	for i, e := range p.Extents {
		errs = append(errs, e.validate(fmt.Sprintf("idPool.extents[%d]", i)))
	}
	for i, e := range p.KubeletExtents.Extents {
		errs = append(errs, e.validate(fmt.Sprintf("idPool.kubeletExtents[%d]", i)))
	}
	return errors.Join(errs...)
}

func (e Extent) validate(field string) error {
	switch {
	case e.Length == 0 || e.Length%idsPerRange != 0:
		return fmt.Errorf("%s.length is %d: want a multiple of %d", field, e.Length, idsPerRange)
	case e.Start%idsPerRange != 0:
		return fmt.Errorf("%s.start is %d: want a multiple of %d", field, e.Start, idsPerRange)
	case e.Start < idsPerRange:
		return fmt.Errorf("%s.start is %d: ids below %d belong to the host", field, e.Start, idsPerRange)
	case uint64(e.Start)+e.Length > 1<<32:
		return fmt.Errorf("%s ends at %d: ids have 32 bits", field, uint64(e.Start)+e.Length)
	}
	return nil
}

func oneOf[T ~string](field string, got T, want ...T) error {
	if slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("%s is %q: want one of %q", field, got, want)
}

func absolute(field, path string) error {
	if filepath.IsAbs(path) {
		return nil
	}
	return fmt.Errorf("%s is %q: want an absolute path", field, path)
}

func nonEmpty(field, value string) error {
	if value != "" {
		return nil
	}
	return fmt.Errorf("%s is empty", field)
}

func positive(field string, n int) error {
	if n > 0 {
		return nil
	}
	return fmt.Errorf("%s is %d: want a positive number", field, n)
}

func hostPort(field, addr string, mayBeEmpty bool) error {
	if addr == "" && mayBeEmpty {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}
