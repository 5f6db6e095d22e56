package engine_test

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// TestFSUsageBesideALayerThatCannotBeRead: containerd gives a layer up of which a file goes away while it is summed up, as
// files do in containers that write. The rest of the node is still told.
func TestFSUsageBesideALayerThatCannotBeRead(t *testing.T) {
	l := newLab(t)
	id := l.pull(labimage.Demo)
	before, err := l.FSUsage(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	req := container.SnapshotRequest{Key: newID(), ImageID: id}
	made, err := l.PrepareSnapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	upper := upperDir(made[0].Options)
	if err := os.Rename(upper, upper+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SnapshotUsage(t.Context(), "", req.Key); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("usage of a layer whose files are away: %v, want an error that does not say that it is gone", err)
	}
	if got, err := l.FSUsage(t.Context(), ""); err != nil || got.Bytes != before.Bytes || got.Inodes != before.Inodes {
		t.Errorf("usage beside it: %+v, %v, want that of the image, %+v", got, err, before)
	}
	if err := os.Rename(upper+".away", upper); err != nil {
		t.Fatal(err)
	}
	if got, err := l.FSUsage(t.Context(), ""); err != nil || got.Inodes <= before.Inodes {
		t.Errorf("usage with it: %+v, %v, want more than that of the image, %+v", got, err, before)
	}
	if err := l.RemoveSnapshot(t.Context(), "", req.Key); err != nil {
		t.Error(err)
	}
}

func upperDir(options []string) string {
	for _, o := range options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	return ""
}
