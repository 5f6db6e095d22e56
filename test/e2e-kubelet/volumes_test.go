package e2ekubelet

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// hostDir makes a directory on the node that anybody may write to. The node's removal removes it.
func (n *node) hostDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(n.Dir, "host", rand.Text())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readHostDir reads a file of the only hostPath volume of the pod.
func (p *pod) readHostDir(t testing.TB, name string) string {
	t.Helper()
	now, err := p.get(t.Context())
	if err != nil || now == nil {
		t.Fatalf("get pod: %v", err)
	}
	for _, volume := range now.Spec.Volumes {
		if volume.HostPath != nil {
			text, err := os.ReadFile(filepath.Join(volume.HostPath.Path, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
	t.Fatal("the pod has no hostPath volume")
	return ""
}

// ownerOnDisk is who owns a file of the host.
func ownerOnDisk(t testing.TB, path string) (uid, gid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%s: no stat", path)
	}
	return stat.Uid, stat.Gid
}

func wantOwner(t testing.TB, path string, uid, gid uint32) {
	t.Helper()
	if gotUID, gotGID := ownerOnDisk(t, path); gotUID != uid || gotGID != gid {
		t.Errorf("on disk %s belongs to %d:%d, want %d:%d", path, gotUID, gotGID, uid, gid)
	}
}

func TestEmptyDirs(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
securityContext: {fsGroup: 2000}
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 4Mi}}
`)
		now := p.ready(t)
		for name, mode := range map[string]string{"disk": "2777", "memory": "3777"} {
			if got := p.sh(t, "echo x > /"+name+"/file && stat -c %u:%g /"+name+"/file && stat -c %u:%g:%a /"+name); got != "1000:2000\n0:2000:"+mode {
				t.Errorf("emptyDir %s: %q", name, got)
			}
		}
		volumes := filepath.Join(n.kubelet.PodDir(string(now.UID)), "volumes/kubernetes.io~empty-dir")
		wantOwner(t, volumes+"/disk/file", 1000, 2000) // unshifted: the volume is idmapped
		if got := p.sh(t, "df -m /memory | tail -n 1 | awk '{print $2}'; grep ' /memory ' /proc/mounts | cut -d ' ' -f 3"); got != "4\ntmpfs" {
			t.Errorf("the memory volume is %q, want 4 MiB of tmpfs", got)
		}
		if resp, err := p.container(t, "main").TryExec(t.Context(), "dd", "if=/dev/zero", "of=/memory/big", "bs=1M", "count=5"); err != nil || resp.ExitCode == 0 {
			t.Errorf("5 MiB fit into a memory volume of 4: %v, %v", resp, err)
		}
	})
}

func TestHostPaths(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		dir := n.hostDir(t)
		if err := os.WriteFile(dir+"/file", []byte("of the host\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := n.run(t, hostUsers, strings.ReplaceAll(`
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  volumeMounts:
  - {name: dir, mountPath: /dir}
  - {name: file, mountPath: /file, readOnly: true}
  - {name: made, mountPath: /made}
  - {name: dir, mountPath: /readonly, readOnly: true}
volumes:
- {name: dir, hostPath: {path: DIR, type: Directory}}
- {name: file, hostPath: {path: DIR/file, type: File}}
- {name: made, hostPath: {path: DIR/made, type: DirectoryOrCreate}}
`, "DIR", dir))
		p.ready(t)
		if got := p.sh(t, "cat /file; echo pod > /dir/new; echo pod > /made/new; stat -c %u:%g /dir/new"); got != "of the host\n0:0" {
			t.Errorf("the pod reads %q", got)
		}
		wantOwner(t, dir+"/new", 0, 0)
		wantOwner(t, dir+"/made/new", 0, 0)
		for _, path := range []string{"/file", "/readonly/new"} {
			if resp, err := p.container(t, "main").TryExec(t.Context(), "sh", "-c", "echo x >> "+path); err != nil || resp.ExitCode == 0 || !strings.Contains(string(resp.Stderr), "Read-only") {
				t.Errorf("a write to %s: %v, %v; want a read-only file system", path, resp, err)
			}
		}
	})
}

// TestFilesThatKubeletWrites mounts the volume of the kind of configMaps, secrets and tokens that needs no API server: its files
// are links that kubelet swaps, on a tmpfs.
func TestFilesThatKubeletWrites(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  resources: {limits: {memory: 64Mi}}
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  env: [{name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}]
  volumeMounts: [{name: downward, mountPath: /downward, readOnly: true}]
volumes:
- name: downward
  downwardAPI:
    defaultMode: 0440
    items:
    - {path: app, fieldRef: {fieldPath: "metadata.labels['app']"}}
    - {path: deep/note, mode: 0444, fieldRef: {fieldPath: "metadata.annotations['note']"}}
    - {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory}}
    - {path: name, fieldRef: {fieldPath: metadata.name}}
securityContext: {fsGroup: 2000}
`)
		now := p.ready(t)
		if got := p.sh(t, "cd /downward; for f in app deep/note memory name; do cat $f; echo; done; echo $NOTE"); got != "demo\nof the test\n67108864\n"+p.name+"\nof the test" {
			t.Errorf("the pod reads %q", got)
		}
		if got := p.sh(t, "stat -Lc %u:%g:%a /downward/app; readlink /downward/..data | grep -c '^\\.\\.20'"); got != "0:2000:440\n1" {
			t.Errorf("a file is %q", got)
		}
		if resp, err := p.container(t, "main").TryExec(t.Context(), "sh", "-c", "echo x > /downward/app"); err != nil || resp.ExitCode == 0 {
			t.Errorf("the pod may write to such a file: %v, %v", resp, err)
		}
		volume := filepath.Join(n.kubelet.PodDir(string(now.UID)), "volumes/kubernetes.io~downward-api/downward")
		if uid, gid := hostOwner(t, n, volume+"/..data/app"); uid != 0 || gid != 2000 {
			t.Errorf("kubelet's file belongs to %d:%d on the host", uid, gid)
		}
	})
}

// hostOwner looks through the node's own mounts, where kubelet's tmpfs are.
func hostOwner(t testing.TB, n *node, path string) (uid, gid uint32) {
	t.Helper()
	return ownerOnDisk(t, n.World.ProcDir()+"/root"+path)
}

func TestSubPaths(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		dir := n.hostDir(t)
		if err := os.MkdirAll(dir+"/there/below", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/there/file", []byte("only me\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := n.run(t, hostUsers, strings.ReplaceAll(`
containers:
- name: main
  image: IMAGE
  command: [sleep, infinity]
  env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumeMounts:
  - {name: host, mountPath: /below, subPath: there/below}
  - {name: host, mountPath: /etc/only, subPath: there/file, readOnly: true}
  - {name: empty, mountPath: /made, subPath: made/by/kubelet}
  - {name: empty, mountPath: /expanded, subPathExpr: logs/$(POD)}
volumes:
- {name: host, hostPath: {path: DIR}}
- {name: empty, emptyDir: {}}
`, "DIR", dir))
		now := p.ready(t)
		if got := p.sh(t, "cat /etc/only; echo x > /below/new; echo y > /made/new; echo z > /expanded/new; ls /below /made /expanded"); got != "only me\n/below:\nnew\n\n/expanded:\nnew\n\n/made:\nnew" {
			t.Errorf("the pod sees %q", got)
		}
		empty := filepath.Join(n.kubelet.PodDir(string(now.UID)), "volumes/kubernetes.io~empty-dir/empty")
		for _, path := range []string{dir + "/there/below/new", empty + "/made/by/kubelet/new", fmt.Sprintf("%s/logs/%s/new", empty, p.name)} {
			wantOwner(t, path, 0, 0)
		}
	})
}

func TestImageVolumes(t *testing.T) {
	eachUsers(t, func(t *testing.T, n *node, hostUsers bool) {
		p := n.run(t, hostUsers, `
containers:
- {name: main, image: IMAGE, command: [sleep, infinity], volumeMounts: [{name: image, mountPath: /image}, {name: image, mountPath: /part, subPath: data}]}
volumes: [{name: image, image: {reference: IMAGE, pullPolicy: IfNotPresent}}]
`)
		p.ready(t)
		if got := p.sh(t, "cat /image/data/nonroot /part/added; stat -c %u:%g /image/data/nonroot"); got != "1000\nby the last layer\n1000:1000" {
			t.Errorf("the pod reads %q", got)
		}
	})
}
