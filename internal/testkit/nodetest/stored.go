package nodetest

import (
	"context"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/userns-shim/userns-shim/internal/labnode"
)

// InContainerd is a context for plain calls to containerd, in the namespace of labs.
func InContainerd(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", labnode.Namespace)
}

// Stored names the blobs, downloads, leases and overlayfs snapshots that containerd holds.
func Stored(t testing.TB, containerd grpc.ClientConnInterface) (things []string) {
	t.Helper()
	ctx := InContainerd(t.Context())
	content := contentapi.NewContentClient(containerd)
	blobs, err := content.List(ctx, &contentapi.ListContentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for page, err := blobs.Recv(); err == nil; page, err = blobs.Recv() {
		for _, blob := range page.GetInfo() {
			things = append(things, "blob "+blob.GetDigest())
		}
	}
	downloads, err := content.ListStatuses(ctx, &contentapi.ListStatusesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range downloads.GetStatuses() {
		things = append(things, "download "+d.GetRef())
	}
	leases, err := leasesapi.NewLeasesClient(containerd).List(ctx, &leasesapi.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.GetLeases() {
		things = append(things, "lease "+lease.GetID())
	}
	for _, name := range Snapshots(t, containerd, "overlayfs") {
		things = append(things, "snapshot "+name)
	}
	return things
}

// Snapshots are the names of what a snapshotter holds.
func Snapshots(t testing.TB, containerd grpc.ClientConnInterface, snapshotter string) (names []string) {
	t.Helper()
	stream, err := snapshotsapi.NewSnapshotsClient(containerd).List(InContainerd(t.Context()), &snapshotsapi.ListSnapshotsRequest{Snapshotter: snapshotter})
	if err != nil {
		t.Fatal(err)
	}
	for page, err := stream.Recv(); err == nil; page, err = stream.Recv() {
		for _, info := range page.GetInfo() {
			names = append(names, info.GetName())
		}
	}
	return names
}

// CollectGarbage makes containerd collect now: the deletion of a lease can wait for a collection.
func CollectGarbage(t testing.TB, containerd grpc.ClientConnInterface) {
	t.Helper()
	ctx := InContainerd(t.Context())
	leases := leasesapi.NewLeasesClient(containerd)
	lease, err := leases.Create(ctx, &leasesapi.CreateRequest{})
	if err != nil {
		t.Fatalf("create lease: %v", err)
	}
	if _, err := leases.Delete(ctx, &leasesapi.DeleteRequest{ID: lease.Lease.ID, Sync: true}); err != nil {
		t.Fatalf("delete lease: %v", err)
	}
}
