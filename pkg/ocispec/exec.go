package ocispec

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec is one more process in a running container.
type Exec struct {
	Args []string
	TTY  bool
}

// BuildExec makes the process of an exec. It is the container's own process, as its
// specification has it, with other arguments and terminal: user, groups, environment, working
// directory, capabilities, labels and no_new_privs are inherited. The result shares what it
// inherits with base, and neither may be changed in place.
func BuildExec(base *specs.Process, e Exec) (*specs.Process, error) {
	if len(e.Args) == 0 || e.Args[0] == "" {
		return nil, ErrNoCommand
	}
	if err := checkNUL("argument", e.Args...); err != nil {
		return nil, err
	}
	p := *base
	p.Args = slices.Clone(e.Args)
	p.CommandLine = ""
	p.Terminal = e.TTY
	p.ConsoleSize = nil
	if e.TTY {
		p.Env = mergeEnv(base.Env, []string{ttyTerm})
	}
	return &p, nil
}
