package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// hostID is one id of the host, with where it was found.
type hostID struct {
	ID   uint32 `json:"id"`
	Kind string `json:"kind"` // "uid", "gid", or "id" for one that was given as such
}

// whoAnswer tells whose a host id is.
type whoAnswer struct {
	hostID
	// InsideID is the id in the pod's user namespace.
	InsideID uint32       `json:"insideId"`
	Range    *admin.Range `json:"range,omitempty"` // nil for an id that is in no range
	// FreeIn is the segment that an id in no range is free in, empty for one that is not the pool's.
	FreeIn string `json:"freeIn,omitempty"`
}

func poolWhoCommand(f *poolFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "who <id | pid:PID | path>",
		Short: "Tell whose host ids are: by number, by process or by file",
		Long: `Tell which pod has a host id. The id is given by its number, as the uid and gid of a
process (pid:PID), or as the owner and group of a file (a path with a slash).`,
		Example: `  userns-shim pool who 2113798144
  userns-shim pool who pid:4711
  userns-shim pool who /var/lib/kubelet/pods/0a1b/volumes/data`,
		Args:              exactArgs(1),
		ValidArgsFunction: f.completeWho,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := hostIDs(args[0])
			if err != nil {
				return err
			}
			ranges, err := f.client().PoolRanges(cmd.Context())
			if err != nil {
				return err
			}
			status, err := f.client().PoolStatus(cmd.Context())
			if err != nil {
				return err
			}
			answers, known := who(ids, ranges, status)
			err = f.print(cmd.OutOrStdout(), answers, func(t *tabwriter.Writer) { whoTable(t, answers) })
			if err == nil && !known {
				return errNobody
			}
			return err
		},
	}
	return withExitCodes(cmd, `0  one of the ids at least is in a range that is not free
1  none is, or the question could not be answered; standard error says why
2  the command line is wrong`)
}

// errNobody makes the command fail when no id is a pod's.
var errNobody = errors.New("no pod and no reservation has these ids")

// hostIDs reads what the argument names.
func hostIDs(arg string) ([]hostID, error) {
	switch pid, isPID := strings.CutPrefix(arg, "pid:"); {
	case isPID:
		number, err := strconv.ParseUint(pid, 10, 31)
		if err != nil {
			return nil, usageError{fmt.Errorf("process %q: want pid:NUMBER", arg)}
		}
		ids, err := ownersOf(filepath.Join("/proc", strconv.FormatUint(number, 10)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no process %d", number)
		}
		return ids, err
	case strings.Contains(arg, "/"):
		return ownersOf(arg)
	}
	id, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return nil, usageError{fmt.Errorf("%q is neither a host id, nor pid:NUMBER, nor a path with a slash", arg)}
	}
	return []hostID{{uint32(id), "id"}}, nil
}

// ownersOf are those of a file itself, not of what a link leads to. A process's directory has its effective ids.
func ownersOf(path string) ([]hostID, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return []hostID{{st.Uid, "uid"}, {st.Gid, "gid"}}, nil
}

// who looks the ids up; known says that one of them is in a range.
func who(ids []hostID, ranges []admin.Range, status admin.PoolStatus) (answers []whoAnswer, known bool) {
	for _, id := range ids {
		a := whoAnswer{hostID: id}
		i := slices.IndexFunc(ranges, func(r admin.Range) bool { return id.ID >= r.Start && id.ID-r.Start < r.Length })
		if i >= 0 {
			a.Range, a.InsideID, known = &ranges[i], id.ID-ranges[i].Start, true
		} else if segment := segmentAt(status, uint64(id.ID)); segment != string(idpool.SegmentExternal) {
			a.FreeIn = segment
		}
		answers = append(answers, a)
	}
	return answers, known
}

func whoTable(t *tabwriter.Writer, answers []whoAnswer) {
	fmt.Fprintln(t, "KIND\tHOST ID\tIN THE POD\tRANGE\tSTATE\tPOD")
	for _, a := range answers {
		if a.Range == nil {
			state := "not in the pool"
			if a.FreeIn != "" {
				state = "free, in the segment " + a.FreeIn
			}
			fmt.Fprintf(t, "%s\t%d\t-\t-\t%s\t-\n", a.Kind, a.ID, state)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d:%d\t%s\t%s\n", a.Kind, a.ID, a.InsideID, a.Range.Start, a.Range.Length, a.Range.State, owner(*a.Range))
	}
}
