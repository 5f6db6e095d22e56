package kernel

import (
	"errors"
	"fmt"
)

// ErrNotSupported says that the kernel, or a filesystem on it, lacks a feature. Errors that wrap it
// are a *FeatureError. A probe's other errors say that it could not find out.
var ErrNotSupported = errors.New("not supported")

// FeatureError says which feature is missing and what would bring it.
type FeatureError struct {
	Feature string // such as "idmapped tmpfs"
	Where   string // path whose filesystem was asked, empty where it does not depend on one
	Needs   string // such as "Linux 6.3"
	Err     error  // the kernel's answer
}

// Error names feature, place, remedy and the kernel's answer.
func (e *FeatureError) Error() string {
	where := ""
	if e.Where != "" {
		where = " on " + e.Where
	}
	return fmt.Sprintf("%s%s: %v (needs %s): %v", e.Feature, where, ErrNotSupported, e.Needs, e.Err)
}

// Unwrap returns ErrNotSupported and the kernel's answer.
func (e *FeatureError) Unwrap() []error { return []error{ErrNotSupported, e.Err} }

// feature is the description of one probe.
type feature struct {
	name  string
	needs string
}

// The features, in the order in which Features reports them.
var (
	userNamespaces   = feature{"user namespaces", "CONFIG_USER_NS, and user.max_user_namespaces above 0"}
	pidFD            = feature{"process file descriptors", "Linux 5.3"}
	tmpfsIDMapped    = feature{"idmapped tmpfs", "Linux 6.3"}
	detachedLayers   = feature{"overlay over detached layers", "Linux 6.15"}
	idmappedMounts   = feature{"idmapped mounts", "Linux 5.12 and a filesystem that takes part"}
	idmappedOverlays = feature{"overlay over idmapped layers", "Linux 5.19 and layers on a filesystem that can be idmapped"}
)

// Feature is the outcome of one probe.
type Feature struct {
	Name  string
	Needs string
	Err   error // nil: there; ErrNotSupported: missing; else unknown
}
