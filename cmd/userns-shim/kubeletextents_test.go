package main

import (
	"context"
	"errors"
	"io/fs"
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
		read: func(path string) ([]byte, error) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
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
	filed := func(subuid, subgid string) kubeletSources {
		s := sources("", "", &exec.Error{Name: "getsubids", Err: exec.ErrNotFound})
		s.read = func(path string) ([]byte, error) {
			text, ok := map[string]string{"/etc/subuid": subuid, "/etc/subgid": subgid}[path]
			if !ok {
				t.Errorf("reads %s", path)
			}
			return []byte(text), nil
		}
		return s
	}
	const entry = "root:100000:65536\nnonsense\nkubelet:1946157056:65536000\n"
	unreadable := filed("", "")
	unreadable.read = func(path string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	for name, tt := range map[string]struct {
		sources kubeletSources
		want    []idpool.Range
	}{
		"the files have a line": {filed(entry, entry), []idpool.Range{{Start: 1946157056, Length: 65536000}}},
		"the files have others": {filed("root:100000:65536", "root:100000:65536"), all},
		"the files differ":      {filed(entry, "kubelet:65536:65536"), idpool.DefaultKubeletExtents()},
		"one file has a line":   {filed(entry, ""), idpool.DefaultKubeletExtents()},
		"the files have two":    {filed(entry+entry, entry), idpool.DefaultKubeletExtents()},
		"a file cannot be read": {unreadable, idpool.DefaultKubeletExtents()},
		"user with a line":      {sources(line, line, nil), []idpool.Range{{Start: 2013265920, Length: 100532224}}},
		"no such user":          {nobody, all},
		"no getsubids":          {sources("", "", &exec.Error{Name: "getsubids", Err: exec.ErrNotFound}), all},
		"uids and gids differ":  {sources(line, "0: kubelet 65536 65536\n", nil), idpool.DefaultKubeletExtents()},
		"two lines":             {sources(line+"1: kubelet 131072 65536\n", line, nil), idpool.DefaultKubeletExtents()},
		"no line":               {sources("", "", nil), idpool.DefaultKubeletExtents()},
		"getsubids fails":       {sources(line, line, errors.New("exit status 1")), idpool.DefaultKubeletExtents()},
		"nonsense":              {sources("what?", "what?", nil), idpool.DefaultKubeletExtents()},
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
