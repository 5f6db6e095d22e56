package image

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memStore is a Store in memory.
type memStore struct {
	images []Info
	pulled []PullRequest
	fail   error
	broken string // snapshotter that cannot be asked
}

var errBroken = errors.New("broken snapshotter")

func (s *memStore) Pull(_ context.Context, req PullRequest) (string, error) {
	s.pulled = append(s.pulled, req)
	return "sha256:" + hexA, s.fail
}

func (s *memStore) List(context.Context) ([]Info, error) { return s.images, s.fail }

func (s *memStore) Get(_ context.Context, ref string) (Info, error) {
	if s.fail != nil {
		return Info{}, s.fail
	}
	i, err := Find(s.images, ref)
	if err != nil {
		return Info{}, err
	}
	return s.images[i], nil
}

func (s *memStore) Remove(ctx context.Context, id string) error {
	if _, err := s.Get(ctx, id); err != nil {
		return err
	}
	s.images = slices.DeleteFunc(s.images, func(i Info) bool { return i.ID == id })
	return nil
}

func (s *memStore) FSUsage(_ context.Context, snapshotter string) (Usage, error) {
	if snapshotter == s.broken {
		return Usage{}, errBroken
	}
	return Usage{Mountpoint: "/" + snapshotter}, s.fail
}

func newManager(t *testing.T, store Store) *Manager {
	t.Helper()
	m, err := New(Options{
		Store: store, DefaultSnapshotter: "overlayfs",
		Snapshotters: map[string]string{"runc": "", "lazy": "stargz", "lazier": "stargz", "other": "btrfs"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManagerPull(t *testing.T) {
	store := &memStore{}
	m := newManager(t, store)
	auth := &Auth{Username: "me"}
	for handler, snapshotter := range map[string]string{"": "overlayfs", "runc": "overlayfs", "lazy": "stargz", "unknown": "overlayfs"} {
		id, err := m.Pull(t.Context(), Request{Image: "busybox", RuntimeHandler: handler, Auth: auth})
		if err != nil || id != "sha256:"+hexA {
			t.Errorf("pull: %q, %v", id, err)
		}
		got := store.pulled[len(store.pulled)-1]
		if got.Ref != "docker.io/library/busybox:latest" || got.Snapshotter != snapshotter || got.Auth != auth {
			t.Errorf("handler %q: the store was asked for %+v", handler, got)
		}
	}
	if _, err := m.Pull(t.Context(), Request{Image: "Not a name"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("pull of a malformed name: %v", err)
	}
	if len(store.pulled) != 4 {
		t.Error("the malformed name reached the store")
	}
}

func TestManagerFinds(t *testing.T) {
	store := &memStore{images: []Info{
		{ID: "sha256:" + hexA, RepoTags: []string{"docker.io/library/busybox:latest"}, Config: imagespec.ImageConfig{User: "7:7"}},
		{ID: "sha256:" + hexC},
	}}
	m := newManager(t, store)
	if all, err := m.List(t.Context(), ""); err != nil || len(all) != 2 {
		t.Errorf("list: %+v, %v", all, err)
	}
	if some, err := m.List(t.Context(), "busybox"); err != nil || len(some) != 1 || *some[0].User.UID != 7 {
		t.Errorf("list by name: %+v, %v", some, err)
	}
	if none, err := m.List(t.Context(), "alpine"); err != nil || len(none) != 0 {
		t.Errorf("list of none: %+v, %v", none, err)
	}
	if img, err := m.Status(t.Context(), "cccc"); err != nil || img.ID != "sha256:"+hexC {
		t.Errorf("status: %+v, %v", img, err)
	}
	if _, err := m.Status(t.Context(), "alpine"); !errdefs.IsNotFound(err) {
		t.Errorf("status of none: %v", err)
	}
	if _, err := m.Status(t.Context(), ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("status of an empty name: %v", err)
	}
	for range 2 { // CRI: an image that is not there is removed already
		if err := m.Remove(t.Context(), "busybox"); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if len(store.images) != 1 {
		t.Errorf("images after the removal: %+v", store.images)
	}
	store.fail = errors.New("broken")
	for what, err := range map[string]error{
		"list":   second(m.List(t.Context(), "")),
		"filter": second(m.List(t.Context(), "busybox")),
		"status": second(m.Status(t.Context(), "busybox")),
		"remove": m.Remove(t.Context(), "busybox"),
		"usage":  second(m.FSInfo(t.Context())),
	} {
		if !errors.Is(err, store.fail) {
			t.Errorf("%s with a broken store: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestManagerFSInfo(t *testing.T) {
	usages, err := newManager(t, &memStore{}).FSInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var at []string
	for _, u := range usages {
		at = append(at, u.Mountpoint)
	}
	if want := []string{"/overlayfs", "/btrfs", "/stargz"}; !slices.Equal(at, want) {
		t.Errorf("usages of %v, want %v", at, want)
	}
}

// TestManagerFSInfoBesideABrokenSnapshotter: that of one handler does not hide the disk of all others from kubelet.
func TestManagerFSInfoBesideABrokenSnapshotter(t *testing.T) {
	usages, err := newManager(t, &memStore{broken: "stargz"}).FSInfo(t.Context())
	if err != nil || len(usages) != 2 || usages[0].Mountpoint != "/overlayfs" || usages[1].Mountpoint != "/btrfs" {
		t.Errorf("usages %v, %v, want those of the others", usages, err)
	}
	if _, err := newManager(t, &memStore{broken: "overlayfs"}).FSInfo(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("with the default one broken: %v", err)
	}
}

func TestNewManager(t *testing.T) {
	for _, opts := range []Options{{DefaultSnapshotter: "overlayfs"}, {Store: &memStore{}}} {
		if _, err := New(opts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("New(%+v): %v, want invalid argument", opts, err)
		}
	}
}
