package engine

import (
	"context"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/mod/semver"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// firstOCIVersion is what an OCI runtime understands that does not tell its features: the command for that
// came with 1.1 of the specification. Some of them, crun 1.8 for one, refuse a later version by its number.
const firstOCIVersion = "1.0.2"

// groupAnnotation is what the runc shim takes a container's group from before anything else.
const groupAnnotation = "io.containerd.runc.v2.group"

// fitSpec returns the specification as the container's OCI runtime and shim take it: marked with a version
// that the runtime knows, and with the group of the record. What the runtime does not know of a specification
// it passes over, and the features that matter are asked for elsewhere.
func (e *Engine) fitSpec(ctx context.Context, rec container.EngineRecord) *specs.Spec {
	fitted := *rec.Spec
	fitted.Annotations = maps.Clone(fitted.Annotations)
	delete(fitted.Annotations, groupAnnotation) // a client that could set it would choose its shim
	if rec.Group != "" {
		if fitted.Annotations == nil {
			fitted.Annotations = make(map[string]string)
		}
		fitted.Annotations[groupAnnotation] = rec.Group
	}
	features, err := e.knownFeatures(ctx, rec.Runtime, rec.BinaryName)
	if err != nil {
		// The start of the container will say what is wrong with the runtime.
		klog.FromContext(ctx).V(2).Info("OCI runtime does not tell its features", "container", rec.ID, "reason", err.Error())
		return &fitted
	}
	fitted.Version = ociVersion(fitted.Version, features)
	return &fitted
}

// ociVersion is the lower one of what a specification is and of what the runtime supports.
func ociVersion(version string, f RuntimeFeatures) string {
	supported := firstOCIVersion
	if f.All != nil {
		supported = f.All.OCIVersionMax
	}
	// A build's suffix ("1.1.0+dev") is of no meaning here.
	if supported = semver.Canonical("v" + supported); supported == "" {
		supported = "v" + firstOCIVersion
	}
	return slices.MinFunc([]string{"v" + version, supported}, semver.Compare)[1:]
}
