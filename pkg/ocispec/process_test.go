package ocispec

import (
	"errors"
	"slices"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestArgv(t *testing.T) {
	image := imagespec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for name, tc := range map[string]struct {
		image         imagespec.ImageConfig
		command, args []string
		want          string
	}{
		"image's own":                  {image, nil, nil, "entry cmd"},
		"args replace cmd":             {image, nil, []string{"a"}, "entry a"},
		"command drops cmd":            {image, []string{"c"}, nil, "c"},
		"both":                         {image, []string{"c"}, []string{"a"}, "c a"},
		"cmd alone":                    {imagespec.ImageConfig{Cmd: []string{"cmd"}}, nil, nil, "cmd"},
		"args alone":                   {imagespec.ImageConfig{}, nil, []string{"a"}, "a"},
		"empty entrypoint of an image": {imagespec.ImageConfig{Entrypoint: []string{""}, Cmd: []string{"cmd"}}, nil, nil, "cmd"},
	} {
		p := Process{Image: tc.image, Command: tc.command, Args: tc.args}
		if got, err := p.argv(); err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tc.want)
		}
	}
	// The image's configuration is shared by containers: appending must not write into it.
	roomy := append(make([]string, 0, 8), "entry")
	p := Process{Image: imagespec.ImageConfig{Entrypoint: roomy}, Args: []string{"a"}}
	if _, err := p.argv(); err != nil || roomy[:2][1] != "" {
		t.Errorf("the image's entrypoint was written to: %q, %v", roomy[:2], err)
	}
}

func TestEnv(t *testing.T) {
	p := Process{
		Image: imagespec.ImageConfig{Env: []string{"A=image", "GONE=1", "GONE", "", "=nameless", "TERM=dumb"}},
		Env:   []KeyValue{{"B", "x=y"}, {"A", "pod"}, {"B", "last"}},
		TTY:   true, Hostname: "web",
	}
	got, err := p.env()
	want := []string{defaultPath, "TERM=dumb", "HOSTNAME=web", "A=pod", "B=last"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestBuildExec(t *testing.T) {
	base := &specs.Process{
		Terminal: true, ConsoleSize: &specs.Box{Width: 1, Height: 1}, User: specs.User{UID: 7}, Args: []string{"main"},
		Env: []string{"A=b", "TERM=image"}, Cwd: "/srv", NoNewPrivileges: true, ApparmorProfile: "a", SelinuxLabel: "s",
	}
	p, err := BuildExec(base, Exec{Args: []string{"ls", "-l"}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Terminal || p.ConsoleSize != nil || !slices.Equal(p.Args, []string{"ls", "-l"}) || !slices.Equal(p.Env, base.Env) {
		t.Errorf("without tty: %+v", p)
	}
	if p.User.UID != 7 || p.Cwd != "/srv" || !p.NoNewPrivileges || p.ApparmorProfile != "a" || p.SelinuxLabel != "s" {
		t.Errorf("not inherited: %+v", p)
	}
	if p, err = BuildExec(base, Exec{Args: []string{"sh"}, TTY: true}); err != nil || !p.Terminal ||
		!slices.Equal(p.Env, []string{"A=b", "TERM=xterm"}) {
		t.Errorf("with tty: %+v, %v", p, err)
	}
	if base.Args[0] != "main" || base.Env[1] != "TERM=image" || !base.Terminal {
		t.Errorf("the container's own process was changed: %+v", base)
	}
	for _, args := range [][]string{nil, {""}, {"a\x00"}} {
		if _, err := BuildExec(base, Exec{Args: args}); !errors.Is(err, ErrInvalid) {
			t.Errorf("args %q: %v", args, err)
		}
	}
}
