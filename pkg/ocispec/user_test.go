package ocispec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	testPasswd = `root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000::/home/alice:/bin/sh
bob:x:1001:2001::/home/bob:/bin/sh
broken:x:-5:0::/:/bin/sh
huge:x:4294967295:0::/:/bin/sh
`
	testGroup = `root:x:0:
alice:x:1000:alice
wheel:x:10:alice,root
images:x:50000:alice
staff:x:2002:
bad:x:-7:bob
`
)

func texts(passwd, group string) Opener {
	return func(path string) (io.ReadCloser, error) {
		switch path {
		case "/etc/passwd":
			return io.NopCloser(strings.NewReader(passwd)), nil
		case "/etc/group":
			return io.NopCloser(strings.NewReader(group)), nil
		}
		return nil, fmt.Errorf("unexpected path %q", path)
	}
}

func noFiles(path string) (io.ReadCloser, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func hostFiles(root string) Opener {
	return func(path string) (io.ReadCloser, error) { return os.Open(filepath.Join(root, path)) }
}

func TestResolveUser(t *testing.T) {
	files := texts(testPasswd, testGroup)
	id := func(n int64) *int64 { return &n }
	for name, tc := range map[string]struct {
		image string
		user  User
		want  ResolvedUser
	}{
		"nobody asks":                           {"", User{}, ResolvedUser{0, 0, []uint32{0, 10}}},
		"image: name":                           {"alice", User{}, ResolvedUser{1000, 1000, []uint32{10, 1000, 50000}}},
		"image: uid":                            {"1000", User{}, ResolvedUser{1000, 1000, []uint32{10, 1000, 50000}}},
		"image: uid without one":                {"4242", User{}, ResolvedUser{4242, 0, []uint32{0}}},
		"image: name:group":                     {"alice:staff", User{}, ResolvedUser{1000, 2002, []uint32{10, 2002, 50000}}},
		"image: uid:gid":                        {"7:8", User{}, ResolvedUser{7, 8, []uint32{8}}},
		"image: name:gid":                       {"alice:8", User{}, ResolvedUser{1000, 8, []uint32{8, 10, 50000}}},
		"image: name and a colon":               {"alice:", User{}, ResolvedUser{1000, 1000, []uint32{10, 1000, 50000}}},
		"image: a colon":                        {":10", User{}, ResolvedUser{0, 10, []uint32{10}}},
		"uid wins over image":                   {"alice", User{UID: id(1001), GID: id(5), GroupsPolicy: GroupsStrict}, ResolvedUser{1001, 5, []uint32{5}}},
		"uid 0 wins over image":                 {"alice", User{UID: id(0)}, ResolvedUser{0, 0, []uint32{0, 10}}},
		"name wins over uid":                    {"", User{UID: id(5), Name: "alice"}, ResolvedUser{1000, 1000, []uint32{10, 1000, 50000}}},
		"name with a gid":                       {"", User{Name: "alice", GID: id(5)}, ResolvedUser{1000, 5, []uint32{5, 10, 50000}}},
		"image's group is not for another user": {"alice:staff", User{UID: id(7)}, ResolvedUser{7, 0, []uint32{0}}},
		"merge":                                 {"alice", User{SupplementalGroups: []int64{9, 10}}, ResolvedUser{1000, 1000, []uint32{9, 10, 1000, 50000}}},
		"strict":                                {"alice", User{SupplementalGroups: []int64{9}, GroupsPolicy: GroupsStrict}, ResolvedUser{1000, 1000, []uint32{9, 1000}}},
		"largest numbers":                       {"2147483647:2147483647", User{}, ResolvedUser{2147483647, 2147483647, []uint32{2147483647}}},
		"bad group unused":                      {"root", User{}, ResolvedUser{0, 0, []uint32{0, 10}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ResolveUser(files, tc.image, tc.user)
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != tc.want.UID || got.GID != tc.want.GID || !slices.Equal(got.AdditionalGids, tc.want.AdditionalGids) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestResolveUserErrors(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	for name, tc := range map[string]struct {
		image string
		user  User
		want  error
		text  string
	}{
		"unknown name":            {"carol", User{}, ErrUserNotFound, "carol"},
		"unknown name of request": {"", User{Name: "carol"}, ErrUserNotFound, "carol"},
		"unknown group":           {"alice:none", User{}, ErrGroupNotFound, "none"},
		"gid without a user":      {"alice", User{GID: id(5)}, ErrInvalid, "without a user"},
		"negative uid":            {"", User{UID: id(-1)}, ErrInvalid, "-1"},
		"uid of 32 bits":          {"", User{UID: id(4294967295)}, ErrInvalid, "4294967295"},
		"uid of 64 bits":          {"99999999999999999999", User{}, ErrInvalid, "99999999999999999999"},
		"negative gid":            {"", User{UID: id(1), GID: id(-2)}, ErrInvalid, "-2"},
		"negative group":          {"", User{SupplementalGroups: []int64{-3}}, ErrInvalid, "-3"},
		"group too large":         {"", User{SupplementalGroups: []int64{1 << 31}}, ErrInvalid, "2147483648"},
		"two colons":              {"alice:staff:x", User{}, ErrGroupNotFound, "staff:x"},
		"colon in a name":         {"", User{Name: "alice:0"}, ErrInvalid, "alice:0"},
		"negative uid in passwd":  {"broken", User{}, ErrInvalid, "broken"},
		"uid too large in passwd": {"huge", User{}, ErrInvalid, "huge"},
		"negative gid in group":   {"bob", User{}, ErrInvalid, "bad"},
		"unknown policy":          {"", User{GroupsPolicy: "x"}, ErrInvalid, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ResolveUser(texts(testPasswd, testGroup), tc.image, tc.user)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %+v, %v, want %v naming %q", got, err, tc.want, tc.text)
			}
		})
	}
}

func TestResolveUserWithoutFiles(t *testing.T) {
	if got, err := ResolveUser(noFiles, "33:44", User{}); err != nil || got.UID != 33 || got.GID != 44 {
		t.Errorf("numbers: %+v, %v", got, err)
	}
	if got, err := ResolveUser(noFiles, "", User{}); err != nil || got.UID != 0 || got.GID != 0 {
		t.Errorf("root: %+v, %v", got, err)
	}
	if _, err := ResolveUser(noFiles, "alice", User{}); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("name: %v", err)
	}
	denied := func(string) (io.ReadCloser, error) { return nil, fs.ErrPermission }
	if _, err := ResolveUser(denied, "0", User{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable: %v", err)
	}
}
