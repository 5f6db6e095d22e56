package main

import (
	"context"
	"errors"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// sources is a node with a user kubelet, of whom getsubids prints uids and gids.
func sources(uids, gids string, err error) kubeletSources {
	return kubeletSources{
		lookup: func(string) (*user.User, error) { return &user.User{}, nil },
		getsubids: func(_ context.Context, args ...string) (string, error) {
			if args[0] == "-g" {
				return gids, err
			}
			return uids, err
		},
	}
}

func TestKubeletExtentsAreWhatKubeletFinds(t *testing.T) {
	const line = "0: kubelet 2013265920 100532224\n"
	all := []idpool.Range{{Start: 65536, Length: 0xFFFF0000}}
	nobody := sources(line, line, nil)
	nobody.lookup = func(name string) (*user.User, error) { return nil, user.UnknownUserError(name) }
	for name, tt := range map[string]struct {
		sources kubeletSources
		want    []idpool.Range
	}{
		"user with a line":     {sources(line, line, nil), []idpool.Range{{Start: 2013265920, Length: 100532224}}},
		"no such user":         {nobody, all},
		"no getsubids":         {sources("", "", &exec.Error{Name: "getsubids", Err: exec.ErrNotFound}), all},
		"uids and gids differ": {sources(line, "0: kubelet 65536 65536\n", nil), idpool.DefaultKubeletExtents()},
		"two lines":            {sources(line+"1: kubelet 131072 65536\n", line, nil), idpool.DefaultKubeletExtents()},
		"no line":              {sources("", "", nil), idpool.DefaultKubeletExtents()},
		"getsubids fails":      {sources(line, line, errors.New("exit status 1")), idpool.DefaultKubeletExtents()},
		"nonsense":             {sources("what?", "what?", nil), idpool.DefaultKubeletExtents()},
	} {
		t.Run(name, func(t *testing.T) {
			if got := kubeletExtents(t.Context(), tt.sources); !slices.Equal(got, tt.want) {
				t.Errorf("extents %v, want %v", got, tt.want)
			}
		})
	}
}

func TestKubeletExtentsErrorNamesTheUser(t *testing.T) {
	if _, err := sources("", "", nil).extents(t.Context()); err == nil || !strings.Contains(err.Error(), "kubelet") {
		t.Errorf("error %v, want one that names the user", err)
	}
}
