package stats

import "testing"

func TestCgroupPath(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/k8s.io/abc", "/k8s.io/abc"},
		{"/kubepods/burstable/pod1/abc", "/kubepods/burstable/pod1/abc"},
		{"system.slice:cri-containerd:abc", "/system.slice/cri-containerd-abc.scope"},
		{"kubepods-burstable-pod1_2.slice:cri-containerd:abc", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope"},
	} {
		if got := CgroupPath(tc.in); got != tc.want {
			t.Errorf("CgroupPath(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestSlicePath(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"-.slice", "/"},
		{"a.slice", "/a.slice"},
		{"a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"},
	} {
		if got := SlicePath(tc.in); got != tc.want {
			t.Errorf("SlicePath(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}
