package inside

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Facts are what one process of a container sees.
type Facts struct {
	UIDMap    string `json:"uidMap"` // of /proc/self, fields apart by one space, lines by "; "
	GIDMap    string `json:"gidMap"`
	SetGroups string `json:"setgroups"` // of /proc/self: allow or deny
	ID        Owner  `json:"id"`        // effective
	Root      Owner  `json:"root"`      // of the directory /
	// Witness is a file of the image.
	Witness Witness `json:"witness"`
	// Made is the owner of the file that the process made at Request.File.
	Made Attempt[Owner] `json:"made"`
	// Processes are the first bytes of the command lines of all that /proc shows.
	Processes []string `json:"processes"`
	// Interfaces are those of /proc/net/dev.
	Interfaces []string `json:"interfaces"`
	// Signal is what came of sending signal 0 to Request.PID.
	Signal Attempt[struct{}] `json:"signal"`
	// Hostname and Tmpfs are what came of setting the host name and of mounting a tmpfs. Neither
	// is tried outside of a user namespace.
	Hostname Attempt[struct{}] `json:"hostname"`
	Tmpfs    Attempt[struct{}] `json:"tmpfs"`
}

// Owner is a user and a group id.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

func (o Owner) String() string { return fmt.Sprintf("%d:%d", o.UID, o.GID) }

// Witness is a file that can be found again in the image's layers, by path and inode.
type Witness struct {
	Path  string `json:"path"` // without symbolic links
	Inode uint64 `json:"inode"`
	Owner Owner  `json:"owner"`
}

// Attempt is what came of something that was tried: a value or an error.
type Attempt[T any] struct {
	Value T      `json:"value"`
	Error string `json:"error,omitempty"`
}

// Request says what to try.
type Request struct {
	File    string // to make, in a directory that is there
	Witness string // to look at
	PID     int    // to send signal 0 to; 0 for nothing
}

// Parse reads the output of a process that told its facts.
func Parse(output []byte) (Facts, error) {
	var facts Facts
	decoder := json.NewDecoder(bytes.NewReader(output))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&facts); err != nil {
		return Facts{}, fmt.Errorf("read the container's answer %.200q: %w", output, err)
	}
	return facts, nil
}
