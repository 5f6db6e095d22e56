package registrytest

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/userns-shim/userns-shim/internal/labimage"
)

// WrongDiffID is an image of which the layer is not what the config says it holds.
func WrongDiffID(t testing.TB) v1.Image {
	t.Helper()
	img, err := labimage.Build(labimage.Spec{Layers: []labimage.Layer{{labimage.Text("text", "not what the config says")}}})
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
