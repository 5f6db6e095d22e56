package engine

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// imageLabels are the labels of the records of an image.
func imageLabels() map[string]string { return map[string]string{imageLabel: imageValue} }

// nameImage records a pulled image under all its names.
func (e *Engine) nameImage(ctx context.Context, pulled images.Image, id string) error {
	names, err := image.RecordNames(pulled.Name, pulled.Target.Digest, id)
	if err != nil {
		return err
	}
	if err := e.names.Lock(ctx, id); err != nil {
		return err
	}
	defer e.names.Unlock(id)
	for _, name := range names {
		rec := images.Image{Name: name, Target: pulled.Target, Labels: imageLabels()}
		if err := e.putRecord(ctx, rec); err != nil {
			return fmt.Errorf("record image under the name %s: %w", name, err)
		}
	}
	return nil
}

// putRecord creates an image record, or updates its target and our labels.
func (e *Engine) putRecord(ctx context.Context, rec images.Image) error {
	for {
		_, err := e.client.ImageService().Create(ctx, rec)
		if !errdefs.IsAlreadyExists(err) {
			return err
		}
		fields := []string{"target"}
		for label := range rec.Labels {
			fields = append(fields, "labels."+label)
		}
		if _, err := e.client.ImageService().Update(ctx, rec, fields...); !errdefs.IsNotFound(err) {
			return err
		}
		// Somebody deleted it in between.
	}
}
