package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"
)

// podVersion is the version of the layout of a pod's checkpoint.
const podVersion = 1

// Pod is what a pod's checkpoint says of the pod. Its directory has an archive for each container.
type Pod struct {
	Name, Namespace, UID string
	Runtime              string // OCI runtime that made the checkpoint
	// Containers are the ids of the containers by name.
	Containers map[string]string
}

// ArchiveName is the file of a container in a pod's checkpoint.
func ArchiveName(containerID string) string { return containerID + ".tar" }

// WritePod writes the description of a pod into the directory of its checkpoint. It comes last: a directory
// without it is no checkpoint.
func WritePod(dir string, p Pod) error {
	_, err := metadata.WriteJSONFile(metadata.CheckpointedPodOptions{
		Version:    podVersion,
		Containers: p.Containers,
		Annotations: map[string]string{
			metadata.CheckpointAnnotationEngine:      engineName,
			metadata.CheckpointAnnotationPod:         p.Name,
			metadata.CheckpointAnnotationNamespace:   p.Namespace,
			metadata.CheckpointAnnotationPodUID:      p.UID,
			metadata.CheckpointAnnotationRuntimeName: p.Runtime,
		},
	}, dir, metadata.PodOptionsFile)
	if err != nil {
		return fmt.Errorf("write checkpoint of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

const engineName = "userns-shim"

// PodFile is the name that WritePod gives its file.
const PodFile = metadata.PodOptionsFile

// ReadPod reads what WritePod wrote. An error that wraps ErrInvalid says that the directory has no such
// checkpoint.
func ReadPod(root *os.Root) (Pod, error) {
	var opts metadata.CheckpointedPodOptions
	err := readJSON(root, PodFile, &opts)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it has no " + PodFile)
	}
	if err != nil {
		return Pod{}, fmt.Errorf("%w of a pod: %w", ErrInvalid, err)
	}
	if engine := opts.Annotations[metadata.CheckpointAnnotationEngine]; opts.Version != podVersion || engine != engineName {
		return Pod{}, fmt.Errorf("%w of a pod: version %d by %q, want version %d by %q", ErrInvalid, opts.Version, engine, podVersion, engineName)
	}
	for name, id := range opts.Containers {
		if info, err := root.Lstat(ArchiveName(id)); !fs.ValidPath(ArchiveName(id)) || err != nil || !info.Mode().IsRegular() {
			return Pod{}, fmt.Errorf("%w of a pod: the archive of container %q is missing", ErrInvalid, name)
		}
	}
	return Pod{
		Name:       opts.Annotations[metadata.CheckpointAnnotationPod],
		Namespace:  opts.Annotations[metadata.CheckpointAnnotationNamespace],
		UID:        opts.Annotations[metadata.CheckpointAnnotationPodUID],
		Runtime:    opts.Annotations[metadata.CheckpointAnnotationRuntimeName],
		Containers: opts.Containers,
	}, nil
}
