// Package subid reads subordinate ids, from the lines of /etc/subuid and
// /etc/subgid and from what getsubids(1) prints, and finds the extent among them
// that kubelet draws its mappings from.
//
// It follows kubelet's rules, because what matters is the extent that kubelet
// uses: one line for the user kubelet, the same for uids and gids. It starts no
// program and opens no file; callers hand it what they read.
package subid
