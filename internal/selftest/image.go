package selftest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// programPath is where the own image holds its only program.
const programPath = "/userns-shim"

var errDynamic = errors.New("the program is linked dynamically and cannot run in an image of its own")

// provideImage makes an image present on the node and returns its name.
func (r *run) provideImage(ctx context.Context) (string, error) {
	if r.opts.Image == "" {
		return r.provideOwn(ctx)
	}
	r.program = inside.Shell()
	present, err := r.present(ctx, r.opts.Image)
	if err != nil {
		return r.opts.Image, err
	}
	if present != nil {
		r.image = present.GetId()
		return r.opts.Image, nil
	}
	return r.opts.Image, r.pull(ctx, r.opts.Image)
}

// provideOwn serves this program as an image. Runtimes on containerd's resolver take plain HTTP
// from a registry on loopback without being told to.
func (r *run) provideOwn(ctx context.Context) (string, error) {
	r.program = inside.Self(programPath)
	program, err := os.ReadFile(r.opts.Program)
	if err != nil {
		return "", fmt.Errorf("read own program: %w", err)
	}
	if err := checkStatic(program); err != nil {
		return "", err
	}
	img, err := labimage.Build(labimage.Spec{Layers: []labimage.Layer{
		{labimage.Dir(".", 0o755), labimage.Dir("dev", 0o755), labimage.Dir("etc", 0o755), labimage.Dir("proc", 0o555), labimage.Dir("sys", 0o555)},
		{labimage.Program(programPath[1:], program)},
	}})
	if err != nil {
		return "", fmt.Errorf("build image: %w", err)
	}
	if r.registry, err = labimage.NewRegistry(nil); err != nil {
		return "", err
	}
	const name = "userns-shim-selftest:latest"
	if _, err := r.registry.Push(ctx, name, img); err != nil {
		return "", err
	}
	ref := r.registry.Ref(name)
	return ref, r.pull(ctx, ref)
}

func checkStatic(program []byte) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("read own program: %w", err)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return errDynamic
		}
	}
	return nil
}

// pull ends when ctx does: an image of unknown size may take its time.
func (r *run) pull(ctx context.Context, ref string) error {
	r.remove = ref
	pulled, err := r.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	r.image = pulled.GetImageRef()
	return nil
}

// present returns nil without an error when the node has no such image.
func (r *run) present(ctx context.Context, ref string) (*runtimeapi.Image, error) {
	status, err := call(ctx, r.images.ImageStatus, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return nil, fmt.Errorf("look for image %s: %w", ref, err)
	}
	return status.GetImage(), nil
}
