package foreign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/subid"
)

// ExportOwner is the name that has the pool's own extents in lines of subordinate ids, where an operator put them there.
const ExportOwner = "userns-shim"

// SubIDs reads /etc/subuid and /etc/subgid below root. kubelet's own line and the exported one of the pool are no
// foreign ones, as far as they are of their own segments.
func SubIDs(root string) Source {
	return Source{name: "subordinate-ids", find: func(_ context.Context, c claims, f *found) error {
		return errors.Join(
			subIDs(c, f, KindSubUID, filepath.Join(root, "etc/subuid")),
			subIDs(c, f, KindSubGID, filepath.Join(root, "etc/subgid")),
		)
	}}
}

func subIDs(c claims, f *found, kind Kind, path string) error {
	file, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines, err := subid.ParseFile(path, file)
	for _, line := range lines {
		except := idpool.Segment("")
		switch line.Owner {
		case subid.User:
			except = idpool.SegmentKubelet
		case ExportOwner:
			except = idpool.SegmentPool
		}
		o := Owner{Kind: kind, Range: line.Range, Who: line.Owner, Where: fmt.Sprintf("%s:%d", path, line.Number)}
		if c.admit(&o, except) {
			f.add(o)
		}
	}
	return readError(err)
}

// readError leaves out what is wrong with single lines: one that cannot be read gives nobody ids.
func readError(err error) error {
	joined, ok := err.(interface{ Unwrap() []error }) // as subid.ParseFile joins them
	if !ok {
		return err
	}
	var left []error
	for _, err := range joined.Unwrap() {
		var bad *subid.LineError
		if !errors.As(err, &bad) {
			left = append(left, err)
		}
	}
	return errors.Join(left...)
}
