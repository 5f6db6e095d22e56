package foreign

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
)

// storedContainer is what counts here of an entry of containers.json.
type storedContainer struct {
	ID     string        `json:"id"`
	Names  []string      `json:"names"`
	UIDMap []storedIDMap `json:"uidmap"`
	GIDMap []storedIDMap `json:"gidmap"`
}

type storedIDMap struct {
	HostID int64 `json:"host_id"`
	Size   int64 `json:"size"`
}

// Storage reads the records of containers-storage below root: those of the host's root user, where Podman, Buildah and CRI-O
// keep containers, running or not. What other users store is within their subordinate ids.
func Storage(root string) Source {
	return Source{name: "containers-storage", find: func(ctx context.Context, c claims, f *found) error {
		var patterns []string
		for _, dir := range storageRoots(root) {
			for _, name := range []string{"containers.json", "volatile-containers.json"} {
				patterns = append(patterns, filepath.Join(root, dir, "*-containers", name))
			}
		}
		return forEachFile(ctx, patterns, func(path string) error {
			if err := storedContainers(ctx, c, f, path); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			return nil
		})
	}}
}

// storageConfigs are where storage.conf says where containers are kept, the strongest first.
var storageConfigs = []string{"etc/containers/storage.conf", "usr/share/containers/storage.conf"}

var storageRoot = regexp.MustCompile(`(?m)^\s*(?:graphroot|runroot)\s*=\s*"(/[^"]*)"`)

// storageRoots are the usual places and those that are configured.
func storageRoots(root string) []string {
	dirs := []string{"/var/lib/containers/storage", "/run/containers/storage"}
	for _, name := range storageConfigs {
		text, err := readSmall(filepath.Join(root, name))
		if err != nil {
			continue // most nodes have none
		}
		for _, match := range storageRoot.FindAllSubmatch(text, -1) {
			if dir := filepath.Clean(string(match[1])); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// storedContainers reads one entry after the other, because nothing bounds the file. It is replaced by renaming when it
// changes, so that it needs no lock.
func storedContainers(ctx context.Context, c claims, f *found, path string) error {
	file, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()
	decoder := json.NewDecoder(bufio.NewReader(file))
	if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
		return cmp.Or(err, errors.New("not a list of containers"))
	}
	for decoder.More() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var entry storedContainer
		if err := decoder.Decode(&entry); err != nil {
			return err
		}
		entry.tell(c, f, path)
	}
	return nil
}

func (s storedContainer) tell(c claims, f *found, path string) {
	var ranges idRanges
	for _, m := range slices.Concat(s.UIDMap, s.GIDMap) {
		ranges.add(m.HostID, m.Size)
	}
	name := "container " + s.ID[:min(len(s.ID), 12)]
	if len(s.Names) > 0 {
		name += " (" + s.Names[0] + ")"
	}
	for _, r := range ranges {
		if o := (Owner{Kind: KindStorage, Range: r, Who: name, Where: path}); c.admit(&o, "") {
			f.add(o)
		}
	}
}
