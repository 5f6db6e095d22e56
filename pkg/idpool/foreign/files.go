package foreign

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// maxFile bounds what is read of one file of which the whole is needed, in bytes.
	maxFile = 1 << 20
	// maxLine bounds what is kept of one line, in bytes.
	maxLine = 64 << 10
	// maxFiles bounds how many files of one directory are read.
	maxFiles = 4096
)

// openRegular opens a file for reading. It refuses what is none, so that nobody can make it wait with a FIFO.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %s: not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readSmall reads a whole file.
func readSmall(path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("read %s: longer than %d bytes", path, maxFile)
	}
	return data, err
}

// forEachFile calls fn for the files that the patterns match, until ctx ends. Errors about single files are joined: the others still count.
func forEachFile(ctx context.Context, patterns []string, fn func(path string) error) error {
	var errs []error
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(paths) > maxFiles {
			errs = append(errs, fmt.Errorf("%s: %d files, of which only %d are read", pattern, len(paths), maxFiles))
			paths = paths[:maxFiles]
		}
		for _, path := range paths {
			if ctx.Err() != nil {
				return errors.Join(append(errs, context.Cause(ctx))...)
			}
			if err := fn(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// forEachLine calls fn for each line, of which it keeps the first maxLine bytes.
func forEachLine(r io.Reader, fn func(line string)) error {
	reader := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			fn(string(line))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = reader.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
