package nri

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/runtime-tools/generate"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// specWriter does single edits of a specification for the library's generator, which knows what an
// adjustment means. The specification has a process, and resources for Linux.
type specWriter struct{ spec *specs.Spec }

var _ generate.UnderlyingGenerator = specWriter{}

func (w specWriter) Spec() *specs.Spec { return w.spec }

func (w specWriter) AddAnnotation(key, value string) { put(&w.spec.Annotations, key, value) }
func (w specWriter) RemoveAnnotation(key string)     { delete(w.spec.Annotations, key) }

func (w specWriter) AddLinuxSysctl(key, value string) { put(&w.spec.Linux.Sysctl, key, value) }
func (w specWriter) RemoveLinuxSysctl(key string)     { delete(w.spec.Linux.Sysctl, key) }

func (w specWriter) AddLinuxResourcesUnified(key, value string) {
	put(&w.spec.Linux.Resources.Unified, key, value)
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

func (w specWriter) SetProcessArgs(args []string)  { w.spec.Process.Args = args }
func (w specWriter) SetProcessOOMScoreAdj(adj int) { w.spec.Process.OOMScoreAdj = &adj }
func (w specWriter) ClearProcessEnv()              { w.spec.Process.Env = nil }

// AddProcessEnv keeps one value for each name.
func (w specWriter) AddProcessEnv(name, value string) {
	env := slices.DeleteFunc(w.spec.Process.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	w.spec.Process.Env = append(env, name+"="+value)
}

func (w specWriter) Mounts() []specs.Mount    { return w.spec.Mounts }
func (w specWriter) ClearMounts()             { w.spec.Mounts = nil }
func (w specWriter) AddMount(mnt specs.Mount) { w.spec.Mounts = append(w.spec.Mounts, mnt) }
func (w specWriter) RemoveMount(target string) {
	w.spec.Mounts = without(w.spec.Mounts, mountAt(target))
}

func mountAt(target string) func(specs.Mount) bool {
	return func(m specs.Mount) bool { return m.Destination == target }
}

// AddDevice replaces the device of the same path.
func (w specWriter) AddDevice(device specs.LinuxDevice) {
	w.RemoveDevice(device.Path)
	w.spec.Linux.Devices = append(w.spec.Linux.Devices, device)
}

func (w specWriter) RemoveDevice(path string) {
	w.spec.Linux.Devices = without(w.spec.Linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == path })
}

func without[T any](list []T, drop func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), drop)
}

func (w specWriter) hooks() *specs.Hooks {
	if w.spec.Hooks == nil {
		w.spec.Hooks = &specs.Hooks{}
	}
	return w.spec.Hooks
}

func (w specWriter) AddPreStartHook(hook specs.Hook) {
	h := w.hooks()
	h.Prestart = append(h.Prestart, hook) //nolint:staticcheck // plugins still use the deprecated hook
}

func (w specWriter) AddPostStartHook(hook specs.Hook) {
	h := w.hooks()
	h.Poststart = append(h.Poststart, hook)
}

func (w specWriter) AddPostStopHook(hook specs.Hook) {
	h := w.hooks()
	h.Poststop = append(h.Poststop, hook)
}

// kinds are the namespaces by the names that plugins use, which are the specification's.
var kinds = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
	specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
}

func (w specWriter) AddOrReplaceLinuxNamespace(name, path string) error {
	if err := w.RemoveLinuxNamespace(name); err != nil {
		return err
	}
	kind := specs.LinuxNamespaceType(name)
	w.spec.Linux.Namespaces = append(w.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	return nil
}

func (w specWriter) RemoveLinuxNamespace(name string) error {
	kind := specs.LinuxNamespaceType(name)
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("no kind of namespace is named %q", name)
	}
	w.spec.Linux.Namespaces = without(w.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	return nil
}

func (w specWriter) SetLinuxCgroupsPath(path string) { w.spec.Linux.CgroupsPath = path }

func (w specWriter) SetLinuxRootPropagation(propagation string) error {
	w.spec.Linux.RootfsPropagation = propagation
	return nil
}

func (w specWriter) AddLinuxResourcesDevice(allow bool, kind string, major, minor *int64, access string) {
	r := w.spec.Linux.Resources
	r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: major, Minor: minor, Access: access})
}

func (w specWriter) AddLinuxResourcesHugepageLimit(size string, limit uint64) {
	r := w.spec.Linux.Resources
	others := without(r.HugepageLimits, func(l specs.LinuxHugepageLimit) bool { return l.Pagesize == size })
	r.HugepageLimits = append(others, specs.LinuxHugepageLimit{Pagesize: size, Limit: limit})
}

func (w specWriter) cpu() *specs.LinuxCPU {
	r := w.spec.Linux.Resources
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r.CPU
}

func (w specWriter) memory() *specs.LinuxMemory {
	r := w.spec.Linux.Resources
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	return r.Memory
}

func (w specWriter) SetLinuxResourcesCPUCpus(cpus string)         { w.cpu().Cpus = cpus }
func (w specWriter) SetLinuxResourcesCPUMems(mems string)         { w.cpu().Mems = mems }
func (w specWriter) SetLinuxResourcesCPUShares(n uint64)          { w.cpu().Shares = &n }
func (w specWriter) SetLinuxResourcesCPUQuota(us int64)           { w.cpu().Quota = &us }
func (w specWriter) SetLinuxResourcesCPUPeriod(us uint64)         { w.cpu().Period = &us }
func (w specWriter) SetLinuxResourcesCPURealtimeRuntime(us int64) { w.cpu().RealtimeRuntime = &us }
func (w specWriter) SetLinuxResourcesCPURealtimePeriod(us uint64) { w.cpu().RealtimePeriod = &us }
func (w specWriter) SetLinuxResourcesMemoryLimit(bytes int64)     { w.memory().Limit = &bytes }
func (w specWriter) SetLinuxResourcesMemorySwap(bytes int64)      { w.memory().Swap = &bytes }
