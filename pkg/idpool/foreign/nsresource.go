package foreign

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// registryEntry is a file of the registry of systemd-nsresourced (257 and later; before 258 without startGid and
// delegates). The same content lies there under several names.
type registryEntry struct {
	Name      string  `json:"name"`
	UserNS    uint64  `json:"userns"` // inode
	Size      uint32  `json:"size"`   // 0 where nothing was allocated
	Start     *uint32 `json:"start"`
	StartGID  *uint32 `json:"startGid"`
	Delegates []struct {
		Start    uint32 `json:"start"`
		StartGID uint32 `json:"startGid"`
		Size     uint32 `json:"size"`
	} `json:"delegates"`
}

// NSResource reads the registry of systemd-nsresourced below root. nsresourced removes entries whose namespace is gone, when it runs.
func NSResource(root string) Source {
	return Source{name: "nsresource", find: func(ctx context.Context, c claims, f *found) error {
		seen := map[uint64]bool{}
		pattern := filepath.Join(root, "run/systemd/nsresource/registry/*.userns")
		return forEachFile(ctx, []string{pattern}, func(path string) error {
			text, err := readSmall(path)
			if err != nil {
				return err
			}
			var e registryEntry
			if err := json.Unmarshal(text, &e); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			if seen[e.UserNS] {
				return nil
			}
			seen[e.UserNS] = true
			for _, r := range e.ranges() {
				o := Owner{Kind: KindNSResource, Range: r, Who: e.Name, Where: path}
				if c.admit(&o, "") {
					f.add(o)
				}
			}
			return nil
		})
	}}
}

// ranges are the host ids of an entry, each once.
func (e registryEntry) ranges() []idpool.Range {
	var ranges idRanges
	if e.Start != nil {
		ranges.add(int64(*e.Start), int64(e.Size))
	}
	if e.StartGID != nil {
		ranges.add(int64(*e.StartGID), int64(e.Size))
	}
	for _, d := range e.Delegates {
		ranges.add(int64(d.Start), int64(d.Size))
		ranges.add(int64(d.StartGID), int64(d.Size))
	}
	return ranges
}
