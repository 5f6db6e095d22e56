package cri

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// ContainerStatus reports a container's mounts as the client asked for them.
func TestMountsRoundTrip(t *testing.T) {
	want := []*runtimeapi.Mount{
		{
			HostPath: "/srv", ContainerPath: "/vol", Readonly: true, SelinuxRelabel: true, RecursiveReadOnly: true,
			MountOptions: []string{"noexec", "nodev"},
		},
		{HostPath: "/srv", ContainerPath: "/host", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{HostPath: "/srv", ContainerPath: "/both", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{ContainerPath: "/image", Readonly: true, ImageSubPath: "a/b", Image: &runtimeapi.ImageSpec{
			Image: "sha256:1", UserSpecifiedImage: "art:v1", RuntimeHandler: "runc", Annotations: map[string]string{"k": "v"},
		}},
	}
	mounts, err := containerMounts(want)
	if err != nil {
		t.Fatal(err)
	}
	volumes := []container.ImageVolume{{Mount: 3, ImageRef: "art@sha256:2"}}
	got := containerStatus(container.Record{Spec: container.Spec{Mounts: mounts}, ImageVolumes: volumes}).Mounts
	want[3].Image.ImageRef = "art@sha256:2" // the runtime's own finding
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

// CRI says that every mount of an image is read-only.
func TestMountedImageIsReadOnly(t *testing.T) {
	mounts, err := containerMounts([]*runtimeapi.Mount{{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: "art"}}})
	if err != nil || !mounts[0].Readonly {
		t.Errorf("got %+v, %v", mounts, err)
	}
}

func TestMountsThatAreRefused(t *testing.T) {
	art := &runtimeapi.ImageSpec{Image: "art"}
	for name, m := range map[string]*runtimeapi.Mount{
		"no source":               {ContainerPath: "/x"},
		"two sources":             {ContainerPath: "/x", HostPath: "/srv", Image: art},
		"image without a name":    {ContainerPath: "/x", Image: &runtimeapi.ImageSpec{}},
		"sub-path without image":  {ContainerPath: "/x", HostPath: "/srv", ImageSubPath: "a"},
		"sub-path that leads out": {ContainerPath: "/x", Image: art, ImageSubPath: "a/../../b"},
		"absolute sub-path":       {ContainerPath: "/x", Image: art, ImageSubPath: "/a"},
		"sub-path with NUL":       {ContainerPath: "/x", Image: art, ImageSubPath: "a\x00b"},
		"image that propagates":   {ContainerPath: "/x", Image: art, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := containerMounts([]*runtimeapi.Mount{m}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v, want InvalidArgument", err)
			}
		})
	}
}
