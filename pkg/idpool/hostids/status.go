package hostids

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// credentials are what a thread's status file says of it.
type credentials struct {
	name string   // its command, as the kernel cuts it
	dead bool     // a zombie, which only waits to be reaped
	uids []uint32 // real, effective, saved, of the file system; each once
	gids []uint32 // likewise, and the supplementary groups
}

// parseStatus reads a file of the form of /proc/<pid>/status.
func parseStatus(text []byte) (credentials, error) {
	var c credentials
	for line := range bytes.Lines(text) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		var err error
		switch string(key) {
		case "Name":
			c.name = string(value)
		case "State":
			c.dead = bytes.HasPrefix(value, []byte("Z")) || bytes.HasPrefix(value, []byte("X"))
		case "Uid":
			c.uids, err = appendIDs(c.uids, value)
		case "Gid", "Groups":
			c.gids, err = appendIDs(c.gids, value)
		}
		if err != nil {
			return credentials{}, fmt.Errorf("read %s of a process: %w", key, err)
		}
	}
	if len(c.uids) == 0 || len(c.gids) == 0 {
		return credentials{}, fmt.Errorf("status of a process without ids: %.60q", text)
	}
	return c, nil
}

func appendIDs(ids []uint32, text []byte) ([]uint32, error) {
	for _, word := range bytes.Fields(text) {
		id, err := strconv.ParseUint(string(word), 10, 32)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, uint32(id)) {
			ids = append(ids, uint32(id))
		}
	}
	return ids, nil
}
