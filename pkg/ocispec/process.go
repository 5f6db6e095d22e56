package ocispec

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	ttyTerm     = "TERM=xterm"
)

func (c *Container) process() (*specs.Process, error) {
	args, err := c.Process.argv()
	if err != nil {
		return nil, err
	}
	env, err := c.Process.env()
	if err != nil {
		return nil, err
	}
	cwd, err := c.Process.cwd()
	if err != nil {
		return nil, err
	}
	caps, err := c.capabilities()
	if err != nil {
		return nil, err
	}
	apparmor, err := c.appArmor()
	if err != nil {
		return nil, err
	}
	oom, err := c.oomScoreAdj()
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:        c.Process.TTY,
		User:            c.User.spec(),
		Args:            args,
		Env:             env,
		Cwd:             cwd,
		Capabilities:    caps,
		NoNewPrivileges: c.Security.NoNewPrivs,
		ApparmorProfile: apparmor,
		OOMScoreAdj:     oom,
	}
	if !c.Security.Privileged {
		p.SelinuxLabel = c.SELinux.Process
	}
	return p, nil
}

// argv merges as Dockerfiles and pods are read: a command replaces the image's entrypoint and
// drops its arguments; arguments alone go to the image's entrypoint.
func (p *Process) argv() ([]string, error) {
	command, args := p.Command, p.Args
	if len(command) == 0 {
		command = p.Image.Entrypoint
		if len(command) == 1 && command[0] == "" { // a Dockerfile's ENTRYPOINT [""] resets it
			command = nil
		}
		if len(args) == 0 {
			args = p.Image.Cmd
		}
	}
	argv := slices.Concat(command, args)
	if len(argv) == 0 || argv[0] == "" {
		return nil, ErrNoCommand
	}
	return argv, checkNUL("argument", argv...)
}

func (p *Process) env() ([]string, error) {
	defaults := []string{defaultPath}
	if p.TTY {
		defaults = append(defaults, ttyTerm)
	}
	if p.Hostname != "" {
		defaults = append(defaults, "HOSTNAME="+p.Hostname)
	}
	requested := make([]string, 0, len(p.Env))
	for _, kv := range p.Env {
		if kv.Key == "" || strings.Contains(kv.Key, "=") {
			return nil, invalidf("name of environment variable %q", kv.Key)
		}
		requested = append(requested, kv.Key+"="+kv.Value)
	}
	env := mergeEnv(defaults, p.Image.Env, requested)
	return env, checkNUL("environment variable", env...)
}

// mergeEnv lets later lists win, each variable at the place of its first mention. An entry
// without "=", which old images have, removes the variable; one without a name is dropped.
func mergeEnv(lists ...[]string) []string {
	var env []string
	place := make(map[string]int)
	for _, entry := range slices.Concat(lists...) {
		name, _, set := strings.Cut(entry, "=")
		if name == "" {
			continue
		}
		if !set {
			entry = ""
		}
		if i, known := place[name]; known {
			env[i] = entry
		} else {
			place[name] = len(env)
			env = append(env, entry)
		}
	}
	return slices.DeleteFunc(env, func(entry string) bool { return entry == "" })
}

func (p *Process) cwd() (string, error) {
	for _, dir := range []string{p.WorkingDir, p.Image.WorkingDir} {
		if dir != "" {
			return path.Clean(dir), checkPath("working directory", dir)
		}
	}
	return "/", nil
}
