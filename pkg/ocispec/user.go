package ocispec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ResolvedUser is who a container's process is, in ids inside the container. AdditionalGids
// are sorted and hold the primary group too, as ContainerStatus reports them.
type ResolvedUser struct {
	UID            uint32   `json:"uid"`
	GID            uint32   `json:"gid"`
	AdditionalGids []uint32 `json:"additionalGids,omitempty"`
}

func (u ResolvedUser) spec() specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.AdditionalGids}
}

// Opener opens a file of the container's root filesystem by its absolute path in there. An
// error that wraps fs.ErrNotExist counts as an empty file. userdb.RootOpener is one.
type Opener func(path string) (io.ReadCloser, error)

const (
	passwdPath = "/etc/passwd"
	groupPath  = "/etc/group"
	// maxID is the largest uid and gid that runc takes.
	maxID = math.MaxInt32
)

// ResolveUser finds out who the process shall be. A name of the request comes first, then its
// uid, then the image's user ("name", "uid", "name:group", "uid:gid", or empty for root). A
// number needs no entry in /etc/passwd, a name does. A gid without a user is an error, as CRI
// says. Groups that /etc/group gives the user are added unless the policy is strict.
//
// Errors wrap ErrInvalid, ErrUserNotFound or ErrGroupNotFound. Whether the ids are mapped in a
// user namespace is Build's to check.
func ResolveUser(open Opener, imageUser string, u User) (ResolvedUser, error) {
	who, group, err := u.wanted(imageUser)
	if err != nil {
		return ResolvedUser{}, err
	}
	db := userDB{open: open}
	entry, err := db.user(who)
	if err != nil {
		return ResolvedUser{}, err
	}
	resolved := ResolvedUser{UID: entry.uid, GID: entry.gid}
	if group != "" {
		if resolved.GID, err = db.group(group); err != nil {
			return ResolvedUser{}, err
		}
	}
	resolved.AdditionalGids, err = db.additionalGids(u, entry.name, resolved.GID)
	if err != nil {
		return ResolvedUser{}, err
	}
	return resolved, nil
}

func (db userDB) additionalGids(u User, name string, primary uint32) ([]uint32, error) {
	gids := []uint32{primary}
	for _, gid := range u.SupplementalGroups {
		if gid < 0 || gid > maxID {
			return nil, invalidf("supplemental group %d", gid)
		}
		gids = append(gids, uint32(gid))
	}
	switch u.GroupsPolicy {
	case GroupsMerge:
		members, err := db.groupsOf(name)
		if err != nil {
			return nil, err
		}
		gids = append(gids, members...)
	case GroupsStrict:
	default:
		return nil, invalidf("supplemental groups policy %q", u.GroupsPolicy)
	}
	slices.Sort(gids)
	return slices.Compact(gids), nil
}

// wanted returns user and group as text, the group empty where it follows from the user.
func (u *User) wanted(imageUser string) (who, group string, err error) {
	switch {
	case u.Name != "":
		who = u.Name
	case u.UID != nil:
		who = strconv.FormatInt(*u.UID, 10)
	case u.GID != nil:
		return "", "", invalidf("group %d is given without a user", *u.GID)
	default:
		who, group, _ = strings.Cut(imageUser, ":")
		if who == "" {
			who = "0"
		}
		return who, group, nil
	}
	if strings.Contains(who, ":") {
		return "", "", invalidf("user name %q", who)
	}
	if u.GID != nil {
		group = strconv.FormatInt(*u.GID, 10)
	}
	return who, group, nil
}

// userDB reads the image's user database. The image's author writes it, so nothing in it is
// trusted: ids are checked after parsing.
type userDB struct {
	open Opener
}

type userEntry struct {
	name     string // empty for a number without an entry
	uid, gid uint32
}

func (db userDB) user(who string) (userEntry, error) {
	uid, numeric, err := parseID("user", who)
	if err != nil {
		return userEntry{}, err
	}
	entries, err := readDB(db.open, passwdPath, func(r io.Reader) ([]user.User, error) {
		return user.ParsePasswdFilter(r, func(e user.User) bool {
			if numeric {
				return e.Uid == int(uid)
			}
			return e.Name == who
		})
	})
	if err != nil {
		return userEntry{}, err
	}
	if len(entries) == 0 {
		if numeric {
			return userEntry{uid: uid}, nil
		}
		return userEntry{}, fmt.Errorf("user %q: %w", who, ErrUserNotFound)
	}
	e := entries[0]
	if !validID(e.Uid) || !validID(e.Gid) {
		return userEntry{}, invalidf("uid %d and gid %d of user %q in the image's %s", e.Uid, e.Gid, e.Name, passwdPath)
	}
	return userEntry{name: e.Name, uid: uint32(e.Uid), gid: uint32(e.Gid)}, nil
}

func (db userDB) group(name string) (uint32, error) {
	gid, numeric, err := parseID("group", name)
	if err != nil || numeric {
		return gid, err
	}
	gids, err := db.gids(func(g user.Group) bool { return g.Name == name })
	if err != nil {
		return 0, err
	}
	if len(gids) == 0 {
		return 0, fmt.Errorf("group %q: %w", name, ErrGroupNotFound)
	}
	return gids[0], nil
}

// groupsOf returns the groups that list the user as a member. The group of the user's own name
// is not one of them: it is the primary group, or was replaced on purpose.
func (db userDB) groupsOf(name string) ([]uint32, error) {
	if name == "" {
		return nil, nil
	}
	return db.gids(func(g user.Group) bool { return g.Name != name && slices.Contains(g.List, name) })
}

func (db userDB) gids(match func(user.Group) bool) ([]uint32, error) {
	groups, err := readDB(db.open, groupPath, func(r io.Reader) ([]user.Group, error) {
		return user.ParseGroupFilter(r, match)
	})
	if err != nil {
		return nil, err
	}
	gids := make([]uint32, 0, len(groups))
	for _, g := range groups {
		if !validID(g.Gid) {
			return nil, invalidf("gid %d of group %q in the image's %s", g.Gid, g.Name, groupPath)
		}
		gids = append(gids, uint32(g.Gid))
	}
	return gids, nil
}

func readDB[T any](open Opener, path string, parse func(io.Reader) ([]T, error)) ([]T, error) {
	f, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the image's %s: %w", path, err)
	}
	defer f.Close()
	entries, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("read the image's %s: %w", path, err)
	}
	return entries, nil
}

// parseID tells a number from a name; a number that is no id is an error rather than a name.
func parseID(kind, s string) (id uint32, numeric bool, err error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, false, nil
	}
	if err != nil || n < 0 || n > maxID {
		return 0, true, invalidf("%s %s is outside 0 to %d", kind, s, maxID)
	}
	return uint32(n), true, nil
}

func validID(id int) bool {
	return id >= 0 && id <= maxID
}
