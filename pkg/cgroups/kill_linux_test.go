package cgroups

import "testing"

// TestIsMember: a number that another process has by now is not killed because its cgroup's name begins alike.
func TestIsMember(t *testing.T) {
	const text = "5:memory:/kubepods/pod1/0a1b\n4:cpu,cpuacct:/kubepods/pod1/0a1b\n0::/user.slice\n"
	for name, want := range map[string]bool{"0a1b": true, "pod1": true, "user.slice": true, "0a1": false, "a1b": false, "cpu": false} {
		if got := isMember(text, name); got != want {
			t.Errorf("member of %s: %t", name, got)
		}
	}
}
