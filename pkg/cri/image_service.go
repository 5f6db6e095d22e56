package cri

import (
	"context"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// imageService is CRI's ImageService. The embedded server answers the RPCs that are not built
// yet with Unimplemented.
type imageService struct {
	runtimeapi.UnimplementedImageServiceServer
	images *image.Manager
}

func (s *imageService) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, invalid("image is empty")
	}
	id, err := s.images.Pull(ctx, image.Request{
		Image:          name,
		RuntimeHandler: req.GetImage().GetRuntimeHandler(),
		Auth:           auth(req.GetAuth()),
	})
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: id}, nil
}

func auth(a *runtimeapi.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username:      a.GetUsername(),
		Password:      a.GetPassword(),
		Auth:          a.GetAuth(),
		ServerAddress: a.GetServerAddress(),
		IdentityToken: a.GetIdentityToken(),
		RegistryToken: a.GetRegistryToken(),
	}
}

func (s *imageService) ListImages(ctx context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	images, err := s.images.List(ctx, req.GetFilter().GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListImagesResponse{}
	for _, img := range images {
		resp.Images = append(resp.Images, imageOf(img))
	}
	return resp, nil
}

// ImageStatus answers without an image where there is none, as CRI says.
func (s *imageService) ImageStatus(ctx context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	img, err := s.images.Status(ctx, req.GetImage().GetImage())
	if errdefs.IsNotFound(err) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ImageStatusResponse{Image: imageOf(img)}
	if req.GetVerbose() {
		if resp.Info, err = verbose(map[string]any{"chainID": img.ChainID, "imageSpec": img.Spec}); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// RemoveImage takes an image that is not there for done, as CRI says.
func (s *imageService) RemoveImage(ctx context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	if err := s.images.Remove(ctx, req.GetImage().GetImage()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo reports images and containers on the same filesystems: a snapshotter keeps both.
func (s *imageService) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	usages, err := s.images.FSInfo(ctx)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ImageFsInfoResponse{}
	for _, u := range usages {
		usage := &runtimeapi.FilesystemUsage{
			Timestamp:  u.At.UnixNano(),
			FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: u.Mountpoint},
			UsedBytes:  &runtimeapi.UInt64Value{Value: u.Bytes},
			InodesUsed: &runtimeapi.UInt64Value{Value: u.Inodes},
		}
		resp.ImageFilesystems = append(resp.ImageFilesystems, usage)
		resp.ContainerFilesystems = append(resp.ContainerFilesystems, usage)
	}
	return resp, nil
}

func imageOf(img image.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id:          img.ID,
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        uint64(max(img.Size, 0)),
		Username:    img.User.Name,
		Spec:        &runtimeapi.ImageSpec{Annotations: map[string]string{}},
		Pinned:      img.Pinned,
	}
	if img.User.UID != nil {
		out.Uid = &runtimeapi.Int64Value{Value: *img.User.UID}
	}
	if len(img.RepoTags) > 0 {
		out.Spec.Image = strings.TrimSpace(img.RepoTags[0])
	}
	return out
}
