package container

import (
	"fmt"
	"maps"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// criuConfigAnnotation tells runc and crun which configuration file CRIU reads.
const criuConfigAnnotation = "org.criu.config"

// adapt brings a new specification in line with the checkpoint that it goes on from. What the
// checkpoint has and the specification has not, or the other way round, is ErrInvalid where CRIU
// would fail, or leave it out without a word.
func (o *origin) adapt(spec *specs.Spec) error {
	was := o.desc.Spec
	if err := same("namespaces", namespaceKinds(was), namespaceKinds(spec)); err != nil {
		return err
	}
	if err := same("mounts", destinations(was), destinations(spec)); err != nil {
		return err
	}
	if was.Process.Terminal != spec.Process.Terminal {
		return fmt.Errorf("%w: a terminal: %t in the checkpoint, now %t", ErrInvalid, was.Process.Terminal, spec.Process.Terminal)
	}
	if o.Exact {
		if err := sameProcess(was.Process, spec.Process); err != nil {
			return err
		}
	} else {
		// What exec takes from the specification is what the processes have.
		spec.Process.Args, spec.Process.Cwd = was.Process.Args, was.Process.Cwd
		spec.Process.Env, spec.Process.User = was.Process.Env, was.Process.User
	}
	annotations := maps.Clone(spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[criuConfigAnnotation] = o.configFile()
	spec.Annotations = annotations
	return nil
}

func sameProcess(was, is *specs.Process) error {
	if !slices.Equal(was.Args, is.Args) {
		return fmt.Errorf("%w: the command is %q, in the checkpoint %q", ErrInvalid, is.Args, was.Args)
	}
	if was.Cwd != is.Cwd {
		return fmt.Errorf("%w: the working directory is %s, in the checkpoint %s", ErrInvalid, is.Cwd, was.Cwd)
	}
	if was.User.UID != is.User.UID || was.User.GID != is.User.GID || !slices.Equal(sorted(was.User.AdditionalGids), sorted(is.User.AdditionalGids)) {
		return fmt.Errorf("%w: the user is %d:%d %d, in the checkpoint %d:%d %d", ErrInvalid,
			is.User.UID, is.User.GID, is.User.AdditionalGids, was.User.UID, was.User.GID, was.User.AdditionalGids)
	}
	return same("environment", sorted(was.Env), sorted(is.Env))
}

func sorted[T ~string | ~uint32](in []T) []T { return slices.Sorted(slices.Values(in)) }

// same wants both lists equal and names what is only in one.
func same(what string, was, is []string) error {
	if slices.Equal(was, is) {
		return nil
	}
	return fmt.Errorf("%w: other %s than in the checkpoint: missing %q, new %q", ErrInvalid, what, without(was, is), without(is, was))
}

func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

func destinations(spec *specs.Spec) []string {
	var out []string
	for _, m := range spec.Mounts {
		out = append(out, path.Clean(m.Destination))
	}
	return sorted(out)
}

// namespaceKinds says of each namespace whether it is the container's own or one that it joins.
func namespaceKinds(spec *specs.Spec) []string {
	var out []string
	for _, ns := range spec.Linux.Namespaces {
		kind := string(ns.Type)
		if ns.Path != "" {
			kind += " of the pod"
		}
		out = append(out, kind)
	}
	return sorted(out)
}
