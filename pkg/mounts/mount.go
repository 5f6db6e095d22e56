package mounts

// Mount is one mount as a snapshotter returns it: filesystem type ("overlay", "bind", "btrfs"),
// source, and options in mount(8) spelling.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Target  string   `json:"target,omitempty"`
	Options []string `json:"options,omitempty"`
}
