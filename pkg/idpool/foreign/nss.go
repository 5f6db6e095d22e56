package foreign

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// OwnNames begins the names that this node's own pods have in the name service.
const OwnNames = "userns-"

// Names lists the users and groups of the name service. It enumerates: a service that tells of its users
// only when it is asked for one, as SSSD does by default, shows none.
func Names(list Lister) Source {
	return Source{name: "name-service", find: func(ctx context.Context, c claims, f *found) error {
		for _, db := range []struct {
			name string
			kind Kind
		}{{"passwd", KindUser}, {"group", KindGroup}} {
			err := list(ctx, db.name, func(r io.Reader) error {
				return forEachLine(r, func(line string) { nameLine(c, f, db.kind, line) })
			})
			if err != nil {
				return fmt.Errorf("list %s of the name service: %w", db.name, err)
			}
		}
		return nil
	}}
}

// Lister hands the entries of a database of the name service, one to a line as in /etc/passwd, to read.
type Lister func(ctx context.Context, database string, read func(io.Reader) error) error

// nameLine reads name:password:id:...; what is no such line is nobody.
func nameLine(c claims, f *found, kind Kind, line string) {
	fields := strings.SplitN(strings.TrimSpace(line), ":", 4)
	if len(fields) < 3 || strings.HasPrefix(fields[0], OwnNames) {
		return
	}
	id, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return
	}
	r := idpool.Range{Start: uint32(id), Length: 1}
	if o := (Owner{Kind: kind, Range: r, Who: fields[0], Where: "name service"}); c.touches(r) && c.admit(&o, "") {
		f.add(o)
	}
}
