package installer

import (
	"fmt"
	"io/fs"
)

// journal is what a run has written down before it did it.
type journal struct {
	Version string `json:"version"`
	Phase   phase  `json:"phase"`
	// Failed is why Version was taken back; it is not tried again by itself.
	Failed string `json:"failed,omitempty"`
	// Files are those that Install replaces, as they were before.
	Files []remembered `json:"files"`
	// NewConfig is set where the node had no configuration: until it is installed, that goes too, for the next attempt may
	// bring a better one.
	NewConfig bool `json:"newConfig,omitempty"`
	// Endpoints are the places that tell kubelet its runtime. The first one wins for kubelet.
	Endpoints []endpoint `json:"endpoints"`
}

// oldEndpoint is the runtime that kubelet had.
func (j journal) oldEndpoint() string {
	for _, e := range j.Endpoints {
		if e.Old != "" {
			return e.Old
		}
	}
	return defaultEndpoint
}

// remembered is a file as it was; without a backup it was not there.
type remembered struct {
	Path   string      `json:"path"`
	Backup string      `json:"backup,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
}

// phase is how far an installation has come.
type phase string

const (
	phaseNone      phase = ""
	phaseFiles     phase = "files"     // programs, unit, service
	phaseSwitching phase = "switching" // kubelet
	phaseInstalled phase = "installed"
	phaseRemoved   phase = "removed"
)

func (p phase) unfinished() bool { return p == phaseFiles || p == phaseSwitching }

// switched tells whether kubelet may use userns-shim.
func (p phase) switched() bool { return p == phaseSwitching || p == phaseInstalled }

// refusal wraps ErrFailedBefore where the version was taken back.
func (j journal) refusal(version string) error {
	if j.Failed == "" || j.Version != version {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrFailedBefore, j.Failed)
}

// Refusal tells whether Install would refuse the version on the node below root, with an error that wraps ErrFailedBefore and
// says why it was taken back.
func Refusal(root, version string) error {
	var j journal
	if err := (host{root}).readJournal(&j); err != nil {
		return err
	}
	return j.refusal(version)
}
