package subid

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// User is the user whose subordinate ids kubelet takes.
const User = "kubelet"

// What is wrong is told by these; use errors.Is.
var (
	// ErrNone: the user has no subordinate ids. kubelet does not start then,
	// although it would without the user.
	ErrNone = errors.New("no subordinate ids")
	// ErrSeveral: the user has more than one extent. kubelet refuses that.
	ErrSeveral = errors.New("more than one extent of subordinate ids")
	// ErrDiffer: subordinate uids and gids are not the same. kubelet refuses
	// that.
	ErrDiffer = errors.New("subordinate uids and gids differ")
	// ErrUnfit: kubelet cannot cut ranges out of the extent.
	ErrUnfit = errors.New("extent does not suit kubelet")
)

// Line is one extent of subordinate ids.
type Line struct {
	Number int    // in its input, from 1
	Owner  string // login name or decimal uid
	Range  idpool.Range
}

// LineError says which line of which input cannot be read.
type LineError struct {
	Input  string
	Number int // from 1
	Text   string
	Err    error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s line %d, %.80q: %v", e.Input, e.Number, e.Text, e.Err)
}

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

var errForm = errors.New("not of the form owner:start:count")

// ParseFile reads the lines owner:start:count of /etc/subuid or /etc/subgid;
// input names it in errors. Empty lines and those that begin with # are passed
// over. It returns the good lines even beside an error, which joins a *LineError
// for each bad one: the programs that use these files go on after a bad line too.
func ParseFile(input string, r io.Reader) ([]Line, error) {
	var lines []Line
	var errs []error
	reader := bufio.NewReader(r)
	for number := 1; ; number++ {
		text, err := reader.ReadString('\n')
		text = strings.TrimSpace(text)
		if text != "" && !strings.HasPrefix(text, "#") {
			line, lineErr := parseLine(text)
			if lineErr != nil {
				errs = append(errs, &LineError{Input: input, Number: number, Text: text, Err: lineErr})
			} else {
				line.Number = number
				lines = append(lines, line)
			}
		}
		if errors.Is(err, io.EOF) {
			return lines, errors.Join(errs...)
		}
		if err != nil {
			return lines, errors.Join(append(errs, fmt.Errorf("read %s: %w", input, err))...)
		}
	}
}

func parseLine(text string) (Line, error) {
	owner, extent, ok := strings.Cut(text, ":")
	if !ok || owner == "" || strings.Count(extent, ":") != 1 {
		return Line{}, errForm
	}
	r, err := idpool.ParseRange(extent)
	if err != nil {
		return Line{}, err
	}
	return Line{Owner: owner, Range: r}, nil
}

// ParseGetsubids reads the output of "getsubids [-g] kubelet", a line such as
// "0: kubelet 2013265920 100532224" for each extent; input names it in errors,
// each a *LineError.
func ParseGetsubids(input, output string) ([]Line, error) {
	var lines []Line
	number := 0
	for text := range strings.Lines(output) {
		number++
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		fail := func(err error) error {
			return &LineError{Input: input, Number: number, Text: strings.TrimSpace(text), Err: err}
		}
		if len(fields) != 4 || !strings.HasSuffix(fields[0], ":") {
			return nil, fail(errors.New("not of the form index: owner start count"))
		}
		r, err := idpool.ParseRange(fields[2] + ":" + fields[3])
		if err != nil {
			return nil, fail(err)
		}
		lines = append(lines, Line{Number: number, Owner: fields[1], Range: r})
	}
	return lines, nil
}

// Of returns the ranges of the lines that belong to one of the owners, such as a
// login name and the uid behind it.
func Of(lines []Line, owners ...string) []idpool.Range {
	var ranges []idpool.Range
	for _, l := range lines {
		if slices.Contains(owners, l.Owner) {
			ranges = append(ranges, l.Range)
		}
	}
	return ranges
}
