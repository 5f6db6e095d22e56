package checkpoint

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Limits bound what an archive may unpack to.
type Limits struct {
	Bytes int64 // of all files together
	Files int
}

// MaxFiles is enough for a container of some ten thousand processes, which have four images each.
const MaxFiles = 100_000

// Pack writes a checkpoint's directory as a tar archive. Files belong to root and are nobody else's to read.
func Pack(ctx context.Context, dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack checkpoint: %w", err)
	}
	defer root.Close()
	out := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return packOne(ctx, root, out, name, entry)
	})
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("pack checkpoint: %w", err)
	}
	return nil
}

func packOne(ctx context.Context, root *os.Root, out *tar.Writer, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	hdr := &tar.Header{Name: name, ModTime: info.ModTime(), Format: tar.FormatPAX}
	if entry.IsDir() {
		hdr.Typeflag, hdr.Mode, hdr.Name = tar.TypeDir, 0o700, name+"/"
		return out.WriteHeader(hdr)
	}
	if !info.Mode().IsRegular() {
		return nil // CRIU leaves a symlink to the directory of an earlier dump
	}
	hdr.Typeflag, hdr.Mode, hdr.Size = tar.TypeReg, 0o600, info.Size()
	if err := out.WriteHeader(hdr); err != nil {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(out, until(ctx, f), info.Size())
	return err
}

// reader reads until an error of its owner's, who gave up.
type reader struct {
	given func() error
	r     io.Reader
}

// until returns a reader that ends with the context.
func until(ctx context.Context, r io.Reader) io.Reader { return reader{ctx.Err, r} }

func (r reader) Read(p []byte) (int, error) {
	if err := r.given(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Unpack takes from an archive what a restore reads. A name that leaves the archive, or anything but a
// directory or a regular file among what is read, is an error that wraps ErrInvalid.
func Unpack(ctx context.Context, r io.Reader, root *os.Root, limits *Limits) error {
	in := tar.NewReader(until(ctx, r))
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unpackError(ctx, err)
		}
		if limits.Files--; limits.Files < 0 {
			return fmt.Errorf("%w: it has too many files", ErrInvalid)
		}
		name := path.Clean(strings.TrimPrefix(hdr.Name, "./"))
		if name == "." || !wanted(name) {
			continue
		}
		if !fs.ValidPath(name) || hdr.Typeflag != tar.TypeReg {
			return fmt.Errorf("%w: entry %q of type %q", ErrInvalid, hdr.Name, hdr.Typeflag)
		}
		if limits.Bytes -= hdr.Size; hdr.Size < 0 || limits.Bytes < 0 {
			return fmt.Errorf("%w: its files are too big", ErrInvalid)
		}
		if err := unpackOne(in, root, name, hdr.Size); err != nil {
			return unpackError(ctx, fmt.Errorf("unpack %s: %w", name, err))
		}
	}
}

// unpackError tells a broken archive from a disk or a caller that gave up.
func unpackError(ctx context.Context, err error) error {
	var pathError *fs.PathError
	if ctx.Err() != nil || errors.As(err, &pathError) && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("unpack checkpoint: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

func unpackOne(in io.Reader, root *os.Root, name string, size int64) error {
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, in, size)
	return errors.Join(err, f.Close())
}
