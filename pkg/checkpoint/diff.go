package checkpoint

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// whiteout begins the name of a file that stands for the absence of another, as in OCI layers.
const whiteout = ".wh."

// Rewrite describes how a diff of a root filesystem is changed on its way.
type Rewrite struct {
	// ID maps the owners of files; nil keeps them.
	ID func(int) int
	// Deleted are paths that get a whiteout beside those that the diff has.
	Deleted []string
}

// CopyDiff copies the diff of a root filesystem entry by entry. A name or the target of a hard link that
// leaves the root is an error that wraps ErrInvalid; so is an entry that is neither file, directory, link,
// FIFO nor device.
func CopyDiff(ctx context.Context, w io.Writer, r io.Reader, change Rewrite) error {
	in, out := tar.NewReader(until(ctx, r)), tar.NewWriter(w)
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return diffError(ctx, err)
		}
		if err := checkEntry(hdr); err != nil {
			return err
		}
		if change.ID != nil {
			hdr.Uid, hdr.Gid = change.ID(hdr.Uid), change.ID(hdr.Gid)
		}
		hdr.Uname, hdr.Gname, hdr.Format = "", "", tar.FormatPAX
		if err := out.WriteHeader(hdr); err != nil {
			return diffError(ctx, err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return diffError(ctx, err)
		}
	}
	for _, name := range change.Deleted {
		if err := removeEntry(out, name); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("copy root filesystem diff: %w", err)
	}
	return nil
}

func diffError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("copy root filesystem diff: %w", err)
	}
	return fmt.Errorf("%w: %s: %w", ErrInvalid, DiffFile, err)
}

var diffTypes = []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo}

func checkEntry(hdr *tar.Header) error {
	if !slices.Contains(diffTypes, hdr.Typeflag) {
		return fmt.Errorf("%w: %s: %q is of type %q", ErrInvalid, DiffFile, hdr.Name, hdr.Typeflag)
	}
	if !staysInside(hdr.Name) || hdr.Typeflag == tar.TypeLink && !staysInside(hdr.Linkname) {
		return fmt.Errorf("%w: %s: %q leaves the root filesystem", ErrInvalid, DiffFile, hdr.Name)
	}
	return nil
}

// staysInside accepts absolute names too, which are meant from the container's root.
func staysInside(name string) bool {
	if strings.ContainsRune(name, 0) {
		return false
	}
	rel := strings.TrimLeft(name, "/")
	return rel == "" || filepath.IsLocal(rel)
}

func removeEntry(out *tar.Writer, name string) error {
	if !staysInside(name) || path.Clean("/"+name) == "/" {
		return fmt.Errorf("%w: deleted file %q leaves the root filesystem", ErrInvalid, name)
	}
	dir, file := path.Split(strings.TrimLeft(path.Clean(name), "/"))
	hdr := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, whiteout+file), Mode: 0o600, Format: tar.FormatPAX}
	if err := out.WriteHeader(hdr); err != nil {
		return fmt.Errorf("copy root filesystem diff: %w", err)
	}
	return nil
}
