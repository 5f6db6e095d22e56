package foreign

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

func TestSubIDs(t *testing.T) {
	kubelet, pool := unit(8), unit(0)
	root := tree(t, map[string]string{
		"etc/subuid": fmt.Sprintf("# people\nalice:100000:65536\nbob:%d:%d\nkubelet:%d:%d\nuserns-shim:%d:%d\nbroken\n",
			unit(2).Start, idpool.Unit, kubelet.Start, 8*idpool.Unit, pool.Start, 8*idpool.Unit),
		// kubelet's line reaches into the pool's own extents, and the exported one into kubelet's.
		"etc/subgid": fmt.Sprintf("kubelet:%d:%d\nuserns-shim:%d:%d\n", unit(7).Start, 2*idpool.Unit, unit(7).Start, 2*idpool.Unit),
	})
	both := idpool.Range{Start: unit(7).Start, Length: 2 * idpool.Unit}
	wantOwners(t, look(t, SubIDs(root), &fakeLedger{}),
		Owner{Kind: KindSubUID, Range: unit(2), Who: "bob"},
		Owner{Kind: KindSubGID, Range: both, Who: "kubelet"},
		Owner{Kind: KindSubGID, Range: both, Who: "userns-shim"})
	if got := look(t, SubIDs(root), &fakeLedger{})[0].Where; !strings.HasSuffix(got, "/etc/subuid:3") {
		t.Errorf("bob's line is at %s, want line 3", got)
	}
	if got := look(t, SubIDs(t.TempDir()), &fakeLedger{}); len(got) != 0 {
		t.Errorf("a node without the files has %+v", got)
	}
}

// TestSubIDsThatAreAFIFO: opening it would wait for ever.
func TestSubIDsThatAreAFIFO(t *testing.T) {
	root := tree(t, map[string]string{"etc/x": ""})
	if err := syscall.Mkfifo(filepath.Join(root, "etc/subuid"), 0o600); err != nil {
		t.Fatal(err)
	}
	var f found
	if err := SubIDs(root).find(t.Context(), claimsOf(&fakeLedger{}), &f); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("error %v", err)
	}
}

func TestAdmitGoesByTheLedger(t *testing.T) {
	l := &fakeLedger{}
	l.hold(unit(0), idpool.StateReserved, "")
	l.hold(unit(1), idpool.StateAllocated, "pod-1")
	l.hold(unit(2), idpool.StateQuarantined, "pod-2")
	l.held = append(l.held, idpool.Allocation{Range: unit(20), State: idpool.StateAllocated, Pod: "pod-3", Segment: idpool.SegmentExternal})
	for name, c := range map[string]struct {
		kind Kind
		r    idpool.Range
		want bool
		pod  idpool.PodUID
	}{
		"reserved":               {KindProcess, unit(0), false, ""},
		"allocated":              {KindProcess, unit(1), true, "pod-1"},
		"quarantined, running":   {KindNamespace, unit(2), false, ""},
		"quarantined, a line":    {KindSubUID, unit(2), true, ""},
		"free":                   {KindUser, unit(3), true, ""},
		"in no segment":          {KindUser, unit(19), false, ""},
		"in no segment, claimed": {KindUser, unit(20), true, "pod-3"},
		"reserved and free":      {KindSubUID, idpool.Range{Start: unit(0).Start, Length: 2 * idpool.Unit}, true, "pod-1"},
		"all ids":                {KindSubUID, idpool.Range{Start: 0, Length: 1<<32 - 1}, true, "pod-1"},
	} {
		o := Owner{Kind: c.kind, Range: c.r}
		if got := claimsOf(l).admit(&o, ""); got != c.want || o.Pod != c.pod {
			t.Errorf("%s: admitted %t with pod %q, want %t and %q", name, got, o.Pod, c.want, c.pod)
		}
	}
}

func TestNSResource(t *testing.T) {
	entry := func(start, startGID uint32) string {
		return fmt.Sprintf(`{"owner":1000,"name":"build","userns":4026532999,"usernsId":7,"size":65536,"start":%d,"target":0,"startGid":%d,"targetGid":0,
			"delegates":[{"userns":5,"start":%d,"startGid":%d,"size":65536}],"cgroups":[1]}`, start, startGID, unit(5).Start, unit(5).Start)
	}
	text := entry(unit(1).Start, unit(2).Start)
	root := tree(t, map[string]string{
		// One registration lies there under the names of its inode, its ids and its name.
		"run/systemd/nsresource/registry/i4026532999.userns": text,
		"run/systemd/nsresource/registry/u1.userns":          text,
		"run/systemd/nsresource/registry/nbuild.userns":      text,
		"run/systemd/nsresource/registry/i1.userns":          `{"owner":0,"name":"empty","userns":1,"size":0}`,
		"run/systemd/nsresource/registry/i2.userns":          `{"owner":0,"name":"far","userns":2,"size":65536,"start":524288,"target":0}`,
		"run/systemd/nsresource/registry/lock":               "",
	})
	got := look(t, NSResource(root), &fakeLedger{})
	wantOwners(t, got,
		Owner{Kind: KindNSResource, Range: unit(1), Who: "build"},
		Owner{Kind: KindNSResource, Range: unit(2), Who: "build"},
		Owner{Kind: KindNSResource, Range: unit(5), Who: "build"})
	broken := tree(t, map[string]string{"run/systemd/nsresource/registry/i1.userns": "{", "run/systemd/nsresource/registry/i3.userns": text})
	var f found
	if err := NSResource(broken).find(t.Context(), claimsOf(&fakeLedger{}), &f); err == nil || len(f.owners) != 3 {
		t.Errorf("beside a broken entry: %v and %+v, want an error and the others", err, f.owners)
	}
}

func TestStorage(t *testing.T) {
	container := func(id, name string, r idpool.Range) string {
		return fmt.Sprintf(`{"id":%q,"names":[%q],"image":"x","layer":"y","metadata":"{}","created":"2025-01-01T00:00:00Z",
			"uidmap":[{"container_id":0,"host_id":%d,"size":1024},{"container_id":1024,"host_id":1000,"size":1}],
			"gidmap":[{"container_id":0,"host_id":%d,"size":1024}],"flags":{"MountLabel":""}}`, id, name, r.Start, r.Start)
	}
	root := tree(t, map[string]string{
		"var/lib/containers/storage/overlay-containers/containers.json":           "[" + container("aaaabbbbccccdddd", "web", unit(1)) + `,{"id":"plain"}]`,
		"run/containers/storage/overlay-containers/volatile-containers.json":      "[" + container("eeee", "job", unit(9)) + "]",
		"etc/containers/storage.conf":                                             "[storage]\ndriver = \"overlay\"\n  graphroot = \"/srv/pods\"\n# graphroot = \"/none\"\n",
		"srv/pods/overlay-containers/containers.json":                             "[" + container("ffff", "far", unit(2)) + "]",
		"var/lib/containers/storage/overlay-containers/aaaa/userdata/config.json": "{",
	})
	first := unit(1)
	first.Length = 1024
	second, third := unit(9), unit(2)
	second.Length, third.Length = 1024, 1024
	wantOwners(t, look(t, Storage(root), &fakeLedger{}),
		Owner{Kind: KindStorage, Range: first, Who: "container aaaabbbbcccc (web)"},
		Owner{Kind: KindStorage, Range: second, Who: "container eeee (job)"},
		Owner{Kind: KindStorage, Range: third, Who: "container ffff (far)"})
	for _, text := range []string{"", "{}", "[{", `[{"uidmap":[{"host_id":-1,"size":5},{"host_id":4294967295,"size":9}]},`} {
		broken := tree(t, map[string]string{"var/lib/containers/storage/vfs-containers/containers.json": text})
		var f found
		if err := Storage(broken).find(t.Context(), claimsOf(&fakeLedger{}), &f); err == nil || len(f.owners) != 0 {
			t.Errorf("%q: %v, %+v, want an error alone", text, err, f.owners)
		}
	}
}

func TestLXC(t *testing.T) {
	conf := func(r idpool.Range) string {
		return fmt.Sprintf("lxc.arch = linux64\nlxc.idmap = u 0 %d 65536\nlxc.idmap = g 0 %d 65536\n", r.Start, r.Start)
	}
	backup := fmt.Sprintf("container:\n  config:\n    image.os: debian\n    volatile.last_state.idmap: '[{\"Isuid\":true,\"Isgid\":false,\"Hostid\":%d,\"Nsid\":0,\"Maprange\":65536}]'\n"+
		"    volatile.idmap.next: '[]'\n  name: db\n", unit(3).Start)
	root := tree(t, map[string]string{
		"run/incus/web/lxc.conf":                                        conf(unit(1)),
		"var/log/lxd/old/lxc.conf":                                      strings.ReplaceAll(conf(unit(2)), "lxc.idmap", "lxc.id_map"),
		"var/lib/lxc/plain/config":                                      "lxc.idmap = u 0 100000 65536\n",
		"run/incus/privileged/lxc.conf":                                 "lxc.arch = linux64\n",
		"var/lib/incus/storage-pools/default/containers/db/backup.yaml": backup,
	})
	wantOwners(t, look(t, LXC(root), &fakeLedger{}),
		Owner{Kind: KindLXC, Range: unit(1), Who: "instance web"},
		Owner{Kind: KindLXC, Range: unit(2), Who: "instance old"},
		Owner{Kind: KindLXC, Range: unit(3), Who: "instance db"})
	broken := tree(t, map[string]string{"run/incus/x/lxc.conf": "lxc.idmap = u\n"})
	var f found
	if err := LXC(broken).find(t.Context(), claimsOf(&fakeLedger{}), &f); err == nil {
		t.Error("a broken map is no error")
	}
}
