package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/image"
)

func TestImageLife(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	id := l.pull(labimage.Demo)
	tag := l.registry.Ref(labimage.Demo)
	byDigest := strings.TrimSuffix(tag, ":latest") + "@" + l.registry.push(t, labimage.Demo)

	info, err := l.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	want := image.Info{ID: id, RepoTags: []string{tag}, RepoDigests: []string{byDigest}}
	if info.ID != want.ID || !slices.Equal(info.RepoTags, want.RepoTags) || !slices.Equal(info.RepoDigests, want.RepoDigests) {
		t.Errorf("image %+v, want %+v", info, want)
	}
	if info.Size < 100_000 || len(info.Config.Cmd) == 0 || info.ChainID == "" || info.Spec.Architecture == "" || info.Pinned {
		t.Errorf("image %+v lacks size, command, chain or architecture, or is pinned", info)
	}
	for _, ref := range []string{tag, strings.TrimSuffix(tag, ":latest"), byDigest, strings.TrimPrefix(id, "sha256:"), id[:20], id[7:19]} {
		if found, err := l.Get(ctx, ref); err != nil || found.ID != id {
			t.Errorf("get %s: %s, %v, want %s", ref, found.ID, err, id)
		}
	}
	other := l.pull(labimage.User)
	all, err := l.List(ctx)
	if err != nil || len(all) != 2 {
		t.Errorf("list: %d images, %v, want 2", len(all), err)
	}
	if err := l.Remove(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(ctx, tag); !errdefs.IsNotFound(err) {
		t.Errorf("get after remove: %v, want not found", err)
	}
	if err := l.Remove(ctx, id); !errdefs.IsNotFound(err) {
		t.Errorf("second remove: %v, want not found", err)
	}
	if found, err := l.Get(ctx, other); err != nil || found.ID != other {
		t.Errorf("the other image: %+v, %v", found, err)
	}
}

// TestImageRecords holds the names and labels that containerd's CRI plugin and nerdctl look for.
func TestImageRecords(t *testing.T) {
	l := newLab(t)
	tag := l.registry.Ref(labimage.Demo)
	id := l.pull(labimage.Demo)
	labels := l.imageRecords()
	byDigest := strings.TrimSuffix(tag, ":latest") + "@" + l.registry.push(t, labimage.Demo)
	for _, name := range []string{id, tag, byDigest} {
		if labels[name]["io.cri-containerd.image"] != "managed" || labels[name]["io.cri-containerd.pinned"] != "" {
			t.Errorf("record %s has labels %v", name, labels[name])
		}
	}
	if len(labels) != 3 {
		t.Errorf("records %v, want three", labels)
	}
}

// TestPinnedImages: what the configuration says holds for images that are there, and only as long as it says so.
func TestPinnedImages(t *testing.T) {
	l := newLab(t)
	id := l.pull(labimage.Demo)
	tag := l.registry.Ref(labimage.Demo)
	for pattern, want := range map[string]bool{
		"":                                   false,
		tag:                                  true,
		strings.TrimSuffix(tag, ":latest"):   true, // as clients write it
		strings.TrimSuffix(tag, "mo:latest"): false,
		l.registry.Addr() + "/*":             true,
		"*/demo@sha256:*":                    true,
		"*.example/*":                        false,
		"demo:latest":                        false, // docker.io/library/demo:latest
	} {
		e := l.newEngine(engine.Options{PinnedImages: []string{pattern}})
		if info, err := e.Get(t.Context(), id); err != nil || info.Pinned != want {
			t.Errorf("pattern %q: pinned %t, %v, want %t", pattern, info.Pinned, err, want)
		}
	}
}

// TestTagMoves: a tag that is pulled again names the new image, and the old one keeps its id and digest.
func TestTagMoves(t *testing.T) {
	l := newLab(t)
	push := func(cmd string) string {
		img, err := labimage.Build(labimage.Spec{Layers: []labimage.Layer{{labimage.Text("x", cmd)}}, Cmd: []string{cmd}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.registry.Push(t.Context(), "moving:tag", img); err != nil {
			t.Fatal(err)
		}
		return l.pullPushed("moving:tag")
	}
	first, next := push("one"), push("two")
	old, err := l.Get(t.Context(), first)
	if err != nil || len(old.RepoTags) != 0 || len(old.RepoDigests) != 1 {
		t.Errorf("the old image: %+v, %v, want a digest and no tag", old, err)
	}
	if now, err := l.Get(t.Context(), l.registry.Ref("moving:tag")); err != nil || now.ID != next || next == first {
		t.Errorf("the tag names %s, %v, want %s", now.ID, err, next)
	}
}

func TestResolveImage(t *testing.T) {
	l := newLab(t)
	id := l.pull(labimage.Demo)
	for _, ref := range []string{id, id[7:20], l.registry.Ref(labimage.Demo)} {
		img, err := l.ResolveImage(t.Context(), ref, "")
		if err != nil {
			t.Fatal(err)
		}
		if img.ID != id || img.Name != l.registry.Ref(labimage.Demo) || !strings.Contains(img.Ref, "@sha256:") || img.Size == 0 {
			t.Errorf("resolve %s: %+v", ref, img)
		}
	}
	if _, err := l.ResolveImage(t.Context(), "no/such:image", ""); !errdefs.IsNotFound(err) {
		t.Errorf("resolve an image that is not there: %v, want not found", err)
	}
	t.Run("another snapshotter", func(t *testing.T) {
		if _, err := l.ResolveImage(t.Context(), id, "native"); err != nil {
			t.Fatal(err)
		}
		req := container.SnapshotRequest{Snapshotter: "native", Key: newID(), ImageID: id}
		made, err := l.PrepareSnapshot(t.Context(), req)
		if err != nil || len(made) != 1 || made[0].Type != "bind" {
			t.Errorf("snapshot: %+v, %v, want one bind", made, err)
		}
		if err := l.RemoveSnapshot(t.Context(), "native", req.Key); err != nil {
			t.Error(err)
		}
	})
}

func TestSnapshots(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for name, kind := range map[string]string{labimage.Layers40: "overlay", labimage.Empty: "bind"} {
		req := container.SnapshotRequest{Key: newID(), ImageID: l.pull(name), Labels: map[string]string{"lab": name}}
		made, err := l.PrepareSnapshot(ctx, req)
		if err != nil || len(made) != 1 || made[0].Type != kind {
			t.Fatalf("%s: snapshot %+v, %v, want one mount of type %s", name, made, err, kind)
		}
		again, err := l.SnapshotMounts(ctx, "overlayfs", req.Key)
		if err != nil || len(again) != 1 || !slices.Equal(again[0].Options, made[0].Options) {
			t.Errorf("%s: mounts again %+v, %v, want %+v", name, again, err, made)
		}
		if _, err := l.PrepareSnapshot(ctx, req); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: second prepare: %v, want already exists", name, err)
		}
		l.collect() // the second prepare must not have ended the lease of the first
		if u, err := l.SnapshotUsage(ctx, "", req.Key); err != nil || u.Inodes == 0 || u.Mountpoint == "" {
			t.Errorf("%s: usage %+v, %v", name, u, err)
		}
		if err := l.RemoveSnapshot(ctx, "", req.Key); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{
			"remove": l.RemoveSnapshot(ctx, "", req.Key),
			"mounts": second(l.SnapshotMounts(ctx, "", req.Key)),
		} {
			if !errdefs.IsNotFound(err) {
				t.Errorf("%s: %s after remove: %v, want not found", name, what, err)
			}
		}
	}
	req := container.SnapshotRequest{Key: newID(), ImageID: "sha256:" + newID()}
	if _, err := l.PrepareSnapshot(ctx, req); !errdefs.IsNotFound(err) {
		t.Errorf("prepare over an image that is not there: %v, want not found", err)
	}
}

func TestFSUsage(t *testing.T) {
	l := newLab(t)
	empty, err := l.FSUsage(t.Context(), "")
	if err != nil || !strings.HasSuffix(empty.Mountpoint, "overlayfs") || empty.Bytes != 0 {
		t.Fatalf("usage without images: %+v, %v", empty, err)
	}
	id := l.pull(labimage.Demo)
	full, err := l.FSUsage(t.Context(), "overlayfs")
	if err != nil || full.Bytes < 500_000 || full.Inodes < 10 || full.At.Before(empty.At) {
		t.Errorf("usage with an image: %+v, %v", full, err)
	}
	if err := l.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if gone, err := l.FSUsage(t.Context(), "overlayfs"); err != nil || gone.Bytes != 0 {
		t.Errorf("usage after the removal of the image: %+v, %v, want nothing: its layers are collected", gone, err)
	}
	if _, err := l.FSUsage(t.Context(), "no-such"); !errdefs.IsNotFound(err) {
		t.Errorf("usage of an unknown snapshotter: %v, want not found", err)
	}
}

// TestCollection: a garbage collection removes nothing that a container uses, from the preparation of its
// snapshot until its end, even when its image was removed.
func TestCollection(t *testing.T) {
	l := newLab(t)
	id := l.pull(labimage.Demo)
	b := l.prepareBox(id, newID(), "cat", "/data/added", "/etc/group")
	l.collect()
	b.record()
	l.collect()
	if err := l.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	l.collect()
	if _, err := l.SnapshotMounts(t.Context(), "", b.id); err != nil {
		t.Error(err)
	}
	if code, out := b.run(); code != 0 || !strings.HasPrefix(out, "by the last layer\n") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestRuntimeFeatures(t *testing.T) {
	l := newLab(t)
	f, err := l.RuntimeFeatures(t.Context(), "io.containerd.runc.v2", "runc")
	if err != nil || !strings.HasPrefix(f.Version, "1.") || !f.IDMappedMounts || !f.RecursiveROMount {
		t.Errorf("features of runc: %+v, %v", f, err)
	}
	if f, err := l.RuntimeFeatures(t.Context(), "io.containerd.runc.v2", "no-such-runtime"); err == nil {
		t.Errorf("features of a runtime that is not there: %+v", f)
	}
	version, err := l.Version(t.Context())
	if err != nil || version == "" {
		t.Errorf("version %q, %v", version, err)
	}
}
