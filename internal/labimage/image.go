package labimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one entry of a layer. The zero Type is a regular file holding Data.
type File struct {
	Path     string // without a leading slash; "./" is the image's root directory
	Type     byte   // tar.TypeReg, TypeDir, TypeSymlink, TypeLink
	Mode     int64  // permission bits with setuid, setgid and sticky as chmod(1) writes them
	UID, GID int
	Link     string // target of a link
	Data     []byte
}

// Layer is the content of one layer, in the order in which it is unpacked.
type Layer []File

// Spec describes an image for one platform. The zero Arch is the machine's own.
type Spec struct {
	Layers     []Layer
	Arch       string
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	Volumes    []string
	StopSignal string
	Labels     map[string]string
	// Annotations are those of the manifest.
	Annotations map[string]string
}

// epoch is the time stamp of everything that is built, so that digests are the same on every run.
var epoch = time.Unix(1, 0).UTC()

// Build makes the image of a spec.
func Build(spec Spec) (v1.Image, error) {
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(
		mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), configFile(spec))
	if err != nil {
		return nil, fmt.Errorf("set image config: %w", err)
	}
	for i, files := range spec.Layers {
		layer, err := buildLayer(files)
		if err != nil {
			return nil, fmt.Errorf("build layer %d: %w", i, err)
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: fmt.Sprintf("labimage layer %d", i)},
		})
		if err != nil {
			return nil, fmt.Errorf("append layer %d: %w", i, err)
		}
	}
	if len(spec.Annotations) > 0 {
		annotated, ok := mutate.Annotations(img, spec.Annotations).(v1.Image)
		if !ok {
			return nil, fmt.Errorf("annotate image: it is no image any more")
		}
		img = annotated
	}
	return img, nil
}

// BuildIndex makes a multi-platform index of several specs that differ in Arch.
func BuildIndex(specs []Spec) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, spec := range specs {
		img, err := Build(spec)
		if err != nil {
			return nil, fmt.Errorf("build image for %s: %w", arch(spec), err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch(spec)}},
		})
	}
	return index, nil
}

func arch(spec Spec) string {
	if spec.Arch == "" {
		return runtime.GOARCH
	}
	return spec.Arch
}

func configFile(spec Spec) *v1.ConfigFile {
	config := v1.Config{
		User:       spec.User,
		Env:        spec.Env,
		Entrypoint: spec.Entrypoint,
		Cmd:        spec.Cmd,
		WorkingDir: spec.WorkingDir,
		StopSignal: spec.StopSignal,
		Labels:     spec.Labels,
	}
	if len(config.Env) == 0 {
		config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	for _, volume := range spec.Volumes {
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		config.Volumes[volume] = struct{}{}
	}
	return &v1.ConfigFile{
		OS:           "linux",
		Architecture: arch(spec),
		Created:      v1.Time{Time: epoch},
		Config:       config,
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
	}
}

func buildLayer(files Layer) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, file := range files {
		if err := writeFile(w, file); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close archive: %w", err)
	}
	content := slices.Clone(buf.Bytes())
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestSpeed))
}

func writeFile(w *tar.Writer, file File) error {
	header := &tar.Header{
		Name:     file.Path,
		Typeflag: file.Type,
		Mode:     file.Mode,
		Uid:      file.UID,
		Gid:      file.GID,
		Linkname: file.Link,
		Size:     int64(len(file.Data)),
		ModTime:  epoch,
		Format:   tar.FormatPAX, // ids above 2097151 do not fit the older formats
	}
	if header.Typeflag == 0 {
		header.Typeflag = tar.TypeReg
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(file.Data)
	return err
}

// Dir is a directory owned by 0:0.
func Dir(name string, mode int64) File {
	return File{Path: path.Clean(name) + "/", Type: tar.TypeDir, Mode: mode}
}

// Text is a regular file of mode 0644 owned by 0:0.
func Text(name, content string) File {
	return File{Path: name, Mode: 0o644, Data: []byte(content)}
}

// Program is an executable of mode 0755 owned by 0:0.
func Program(name string, content []byte) File {
	return File{Path: name, Mode: 0o755, Data: content}
}

// Symlink points from name to target.
func Symlink(name, target string) File {
	return File{Path: name, Type: tar.TypeSymlink, Mode: 0o777, Link: target}
}

// Owned returns the file with another owner.
func (f File) Owned(uid, gid int) File {
	f.UID, f.GID = uid, gid
	return f
}
