package checkpoint

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ErrInvalid means that an archive or a directory is no checkpoint that can be restored.
var ErrInvalid = errors.New("invalid checkpoint")

// Names in a checkpoint beside those of checkpointctl's library.
const (
	// ImagesDir has CRIU's images.
	ImagesDir = metadata.CheckpointDirectory
	// DiffFile is what the container changed in its root filesystem, a tar archive with the whiteouts
	// of OCI layers. Owners are ids inside the container.
	DiffFile = metadata.RootFsDiffTar
	// DumpLog and StatsFile are written by CRIU.
	DumpLog   = metadata.DumpLogFile
	StatsFile = "stats-dump"
	// LogFile is the container's log as it was.
	LogFile = "container.log"
	// RestoreLog is CRIU's log of a restore.
	RestoreLog = metadata.RestoreLogFile
)

// maxJSON bounds a metadata file, in bytes. Specifications have some tens of kilobytes.
const maxJSON = 4 << 20

// Description is what a checkpoint says of its container.
type Description struct {
	Config metadata.ContainerConfig
	Spec   *specs.Spec
	// Deleted are paths that the container removed from its root filesystem, where that is not
	// said by whiteouts.
	Deleted []string
}

// Describe writes the metadata into a checkpoint's directory. Status is what CRI reported of the container.
func Describe(dir string, d Description, status any) error {
	for name, v := range map[string]any{
		metadata.ConfigDumpFile: d.Config,
		metadata.SpecDumpFile:   d.Spec,
		metadata.StatusDumpFile: status,
	} {
		if _, err := metadata.WriteJSONFile(v, dir, name); err != nil {
			return fmt.Errorf("write %s of checkpoint: %w", name, err)
		}
	}
	return nil
}

// Read reads the metadata of an unpacked checkpoint. What is missing or cannot be read is an error that
// wraps ErrInvalid.
func Read(root *os.Root) (Description, error) {
	var d Description
	// The first one first: what is no checkpoint at all lacks that.
	if err := readJSON(root, metadata.ConfigDumpFile, &d.Config); err != nil {
		return Description{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := readJSON(root, metadata.SpecDumpFile, &d.Spec); err != nil {
		return Description{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if d.Spec == nil || d.Spec.Process == nil || d.Spec.Linux == nil {
		return Description{}, fmt.Errorf("%w: %s is no specification of a container", ErrInvalid, metadata.SpecDumpFile)
	}
	err := readJSON(root, metadata.DeletedFilesFile, &d.Deleted)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Description{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	info, err := root.Stat(ImagesDir)
	if err != nil || !info.IsDir() {
		return Description{}, fmt.Errorf("%w: it has no directory %s with the images of CRIU", ErrInvalid, ImagesDir)
	}
	return d, nil
}

// readJSON reads a bounded file.
func readJSON(root *os.Root, name string, v any) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxJSON {
		return fmt.Errorf("%s has more than %d bytes", name, maxJSON)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
	}
	return nil
}

// VolumeFile names the archive of the volume that the image declares at a path of the container.
func VolumeFile(containerPath string) string {
	return path.Join(metadata.CheckpointVolumesDirectory, hex.EncodeToString([]byte(containerPath))+".tar")
}

// NameOf returns the name of the container of which an image with these annotations holds a checkpoint,
// and "" for any other image.
func NameOf(annotations map[string]string) string {
	for _, key := range []string{metadata.CheckpointAnnotationName, crioAnnotation} {
		if name := annotations[key]; name != "" {
			return name
		}
	}
	return ""
}

// crioAnnotation is CRI-O's name from before there was a common one.
const crioAnnotation = "io.kubernetes.cri-o.annotations.checkpoint.name"

// wanted says whether a name is one that a restore reads. Others, such as logs, are left out.
func wanted(name string) bool {
	dir, file := path.Split(name)
	switch strings.TrimSuffix(dir, "/") {
	case "":
		switch file {
		case metadata.ConfigDumpFile, metadata.SpecDumpFile, metadata.DeletedFilesFile, DiffFile, ShmFile:
			return true
		}
	case ImagesDir, metadata.CheckpointVolumesDirectory:
		return file != ""
	}
	return false
}
