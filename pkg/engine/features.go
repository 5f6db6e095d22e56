package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"k8s.io/apimachinery/pkg/util/version"
)

// RuntimeFeatures is what an OCI runtime says of itself.
type RuntimeFeatures struct {
	Version          string // of the OCI runtime, such as "1.5.0"; "" where it does not say
	IDMappedMounts   bool   // honours the mount options idmap and ridmap
	RecursiveROMount bool   // honours the mount option rro
	ChownsDevices    bool   // gives devices of the host that are standard streams to the container's user
	All              *features.Features
}

// runtimeInfoAge is how long an answer is believed. Asking starts two programs, and the binary may be
// replaced at any time.
const runtimeInfoAge = time.Minute

type runtimeInfos struct {
	asking *keyedLock

	mu    sync.Mutex
	byKey map[runtimeKey]runtimeInfo // guarded by mu
}

type runtimeKey struct{ runtime, binary string }

type runtimeInfo struct {
	RuntimeFeatures
	at       time.Time
	connects uint64
}

func newRuntimeInfos() *runtimeInfos {
	return &runtimeInfos{asking: newKeyedLock(), byKey: make(map[runtimeKey]runtimeInfo)}
}

// RuntimeFeatures returns the features of the OCI runtime that a runtime handler uses: runtime is
// containerd's name of the shim, binary that of the OCI runtime as containerd finds it. A runtime
// that does not tell its features has none.
func (e *Engine) RuntimeFeatures(ctx context.Context, runtime, binary string) (RuntimeFeatures, error) {
	key := runtimeKey{runtime, binary}
	if err := e.infos.asking.Lock(ctx, runtime+"\n"+binary); err != nil {
		return RuntimeFeatures{}, fmt.Errorf("ask runtime %s for features of %s: %w", runtime, binary, err)
	}
	defer e.infos.asking.Unlock(runtime + "\n" + binary)
	connects := e.link.connects.Load()
	e.infos.mu.Lock()
	info, ok := e.infos.byKey[key]
	e.infos.mu.Unlock()
	if ok && info.connects == connects && time.Since(info.at) < runtimeInfoAge {
		return info.RuntimeFeatures, nil
	}
	answer, err := e.client.RuntimeInfo(ctx, runtime, &options.Options{BinaryName: binary})
	if err != nil {
		return RuntimeFeatures{}, fmt.Errorf("ask runtime %s for features of %s: %w", runtime, binary, err)
	}
	info = runtimeInfo{at: time.Now(), connects: e.link.connects.Load()}
	if told, ok := answer.Features.(*features.Features); ok && told != nil {
		info.RuntimeFeatures = readFeatures(told)
	}
	e.infos.mu.Lock()
	defer e.infos.mu.Unlock()
	e.infos.byKey[key] = info
	return info.RuntimeFeatures, nil
}

// knownFeatures is RuntimeFeatures for who can do with an older answer, so that the start of a container does
// not wait for two programs.
func (e *Engine) knownFeatures(ctx context.Context, runtime, binary string) (RuntimeFeatures, error) {
	e.infos.mu.Lock()
	info, ok := e.infos.byKey[runtimeKey{runtime, binary}]
	e.infos.mu.Unlock()
	if ok && info.connects == e.link.connects.Load() {
		return info.RuntimeFeatures, nil
	}
	return e.RuntimeFeatures(ctx, runtime, binary)
}

// crunVersion is an annotation of crun's features. Before 1.24 crun gives whatever its standard streams are to the
// container's user (containers/crun#1847), and the input of most containers is the host's /dev/null.
const crunVersion = "run.oci.crun.version"

func readFeatures(told *features.Features) RuntimeFeatures {
	f := RuntimeFeatures{
		All:              told,
		Version:          cmp.Or(told.Annotations["org.opencontainers.runc.version"], told.Annotations[crunVersion]),
		RecursiveROMount: slices.Contains(told.MountOptions, "rro"),
	}
	if crun := told.Annotations[crunVersion]; crun != "" {
		at, err := version.ParseGeneric(crun)
		f.ChownsDevices = err != nil || at.LessThan(version.MajorMinor(1, 24))
	}
	if told.Linux != nil && told.Linux.MountExtensions != nil && told.Linux.MountExtensions.IDMap != nil {
		enabled := told.Linux.MountExtensions.IDMap.Enabled
		f.IDMappedMounts = enabled != nil && *enabled
	}
	return f
}
