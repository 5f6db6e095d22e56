package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	metadata "github.com/checkpoint-restore/checkpointctl/lib"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// partialFile, in the directory of a checkpoint that is being made, has the path of its unfinished archive.
const partialFile = "partial"

// checkpointDir is where a container's checkpoint is put together. While it is there the container may be
// frozen: it is made before, and removed after, so that Recover finds what a crash left.
func (m *Manager) checkpointDir(id string) string {
	return filepath.Join(m.opts.RootDir, "checkpoints", id)
}

// beginCapture makes the directory of a container that runs.
func (m *Manager) beginCapture(c *captured) (err error) {
	if c.rec, err = m.Running(c.id); err != nil {
		return err
	}
	dir := m.checkpointDir(c.id)
	if err := os.MkdirAll(filepath.Join(dir, "archive", metadata.CheckpointVolumesDirectory), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, partialFile), []byte(c.partial()), 0o600); err != nil {
		return err
	}
	c.dir = filepath.Join(dir, "archive")
	c.root, err = os.OpenRoot(c.dir)
	return err
}

// partial is where the archive grows before it gets its name.
func (c *captured) partial() string { return c.archive + ".partial-" + c.id[:min(12, len(c.id))] }

// endCapture removes what beginCapture made. A container that stays frozen keeps it, for Recover.
func (m *Manager) endCapture(c *captured) error {
	if c.root != nil {
		_ = c.root.Close()
	}
	if c.frozen {
		return nil
	}
	return m.removeCheckpoint(c.id)
}

// removeCheckpoint removes a checkpoint that is being made, with its unfinished archive. None is done.
func (m *Manager) removeCheckpoint(id string) error {
	partial, err := os.ReadFile(filepath.Join(m.checkpointDir(id), partialFile))
	if err == nil {
		err = removePath(string(partial))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, removeTree(filepath.Join(m.opts.RootDir, "checkpoints"), id))
}

// removeTree removes a directory in which only this program and CRIU put something, and nothing is mounted.
func removeTree(parent, name string) error {
	root, err := os.OpenRoot(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(name)
}

// write writes down everything of a frozen container.
func (m *Manager) write(ctx context.Context, sb sandbox.Record, handler Handler, c *captured, opts CheckpointOptions) error {
	images := filepath.Join(c.dir, checkpoint.ImagesDir)
	if err := os.MkdirAll(images, 0o700); err != nil {
		return err
	}
	if err := m.opts.Checkpoints.DumpTask(ctx, Dump{ID: c.id, Images: images, Work: c.dir}); err != nil {
		return criuError(filepath.Join(c.dir, checkpoint.DumpLog), err)
	}
	if err := m.writeDiff(ctx, sb, c); err != nil {
		return err
	}
	for i, p := range c.rec.DeclaredVolumes {
		if err := checkpoint.PackTree(ctx, c.root, checkpoint.VolumeFile(p), m.Paths(c.id).DeclaredVolume(i)); err != nil {
			return err
		}
	}
	return m.describe(ctx, handler, c, opts)
}

// describe writes the metadata.
func (m *Manager) describe(ctx context.Context, handler Handler, c *captured, opts CheckpointOptions) error {
	rec := c.rec
	spec, err := m.opts.Records.RecordSpec(ctx, rec.ID)
	if err != nil {
		return err
	}
	err = checkpoint.Describe(c.dir, checkpoint.Description{
		Config: metadata.ContainerConfig{
			ID:              rec.ID,
			Name:            rec.Spec.Metadata.Name,
			RootfsImage:     rec.Spec.Image,
			RootfsImageName: rec.Spec.Image,
			RootfsImageRef:  rec.ImageRef,
			OCIRuntime:      runtimeName(handler),
			CreatedTime:     rec.CreatedAt,
			CheckpointedAt:  m.opts.Clock.Now(),
		},
		Spec: spec,
	}, opts.Status(rec))
	if err == nil {
		err = checkpoint.WriteStatus(c.dir, checkpoint.Status{
			CreatedAt: rec.CreatedAt.UnixNano(), StartedAt: rec.StartedAt.UnixNano(), Pid: rec.PID,
		})
	}
	if err == nil && rec.LogPath != "" {
		err = checkpoint.CopyLog(c.dir, rec.LogPath)
	}
	return err
}

// writeDiff writes what the container changed in its root filesystem. A pod's ids on disk are shifted.
func (m *Manager) writeDiff(ctx context.Context, sb sandbox.Record, c *captured) error {
	f, err := os.OpenFile(filepath.Join(c.dir, checkpoint.DiffFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	var change checkpoint.Rewrite
	if sb.Range != nil {
		change.ID = func(id int) int {
			if inside := id - int(sb.Range.Start); inside >= 0 && inside < int(sb.Range.Length) {
				return inside
			}
			return id
		}
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := checkpoint.CopyDiff(ctx, f, r, change)
		r.CloseWithError(err)
		done <- err
	}()
	err = m.opts.Diffs.ReadDiff(ctx, c.rec.Snapshotter, c.id, w)
	w.CloseWithError(err)
	return errors.Join(err, <-done, f.Close())
}

// writeShm writes the pod's /dev/shm, unless it is the host's.
func (m *Manager) writeShm(ctx context.Context, sb sandbox.Record, c *captured) error {
	shm := m.podFiles(sb).Shm
	if entries, err := os.ReadDir(shm); err != nil || len(entries) == 0 || sb.Spec.Namespaces.IPC == sandbox.ModeNode {
		return err
	}
	return checkpoint.PackTree(ctx, c.root, checkpoint.ShmFile, shm)
}

// pack writes the archive beside its place and moves it there when it is whole.
func pack(ctx context.Context, c *captured) error {
	f, err := os.OpenFile(c.partial(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = checkpoint.Pack(ctx, c.dir, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(c.partial(), c.archive)
}

// criuError says what CRIU could not do, or that it did not even begin: then it leaves no log.
func criuError(log string, err error) error {
	tail, logErr := criuErrors(log)
	switch {
	case errors.Is(logErr, fs.ErrNotExist):
		return fmt.Errorf("%w: CRIU did not run, which needs the program criu (tested with 4.1) on the PATH of containerd: %w", ErrCheckpoint, err)
	case logErr != nil:
		return errors.Join(fmt.Errorf("%w: %w", ErrCheckpoint, err), logErr)
	}
	if slices.ContainsFunc(tail, pidTaken.MatchString) {
		err = fmt.Errorf("%w: %w", errPIDTaken, err)
	}
	return fmt.Errorf("%w: CRIU cannot do it: %s: %w", ErrCheckpoint, strings.Join(tail, "; "), err)
}

// errPIDTaken says that a process id of the checkpoint is another process's by now.
var errPIDTaken = errors.New("a process id that the container had is taken in its PID namespace")

var pidTaken = regexp.MustCompile(`^Can't fork for [0-9]+: File exists$`)

// criuLines is how many of CRIU's errors an error of ours repeats.
const criuLines = 5

// criuErrors returns the last errors in a log of CRIU's.
func criuErrors(log string) ([]string, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// Such a line is "(00.012345) 7: Error (criu/files.c:12): what happened".
		_, text, ok := strings.Cut(lines.Text(), "Error (")
		if !ok {
			continue
		}
		_, text, _ = strings.Cut(text, "): ")
		if found = append(found, text); len(found) > criuLines {
			found = slices.Delete(found, 0, 1)
		}
	}
	return found, lines.Err()
}
