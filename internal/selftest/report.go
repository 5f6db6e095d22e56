package selftest

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Check is the outcome of one check. A check that passed has OK; one that was skipped or failed
// has not, and Detail says why.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Skipped bool   `json:"skipped"`
	Got     string `json:"got"`
	Want    string `json:"want"`
	Detail  string `json:"detail"`
}

// Failed tells a failure from a check that was skipped.
func (c Check) Failed() bool { return !c.OK && !c.Skipped }

// Report is what Run found.
type Report struct {
	Endpoint string  `json:"endpoint"`
	Runtime  string  `json:"runtime"`
	Version  string  `json:"version"`
	Checks   []Check `json:"checks"`
	OK       bool    `json:"ok"`
}

// Count returns how many checks passed, were skipped and failed.
func (r Report) Count() (passed, skipped, failed int) {
	for _, c := range r.Checks {
		switch {
		case c.OK:
			passed++
		case c.Skipped:
			skipped++
		default:
			failed++
		}
	}
	return passed, skipped, failed
}

// WriteJSON writes the report as one indented JSON document.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// nameWidth is that of the longest check's name.
const nameWidth = 18

// WriteText writes a line for each check, and below a failed one what it means.
func (r Report) WriteText(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s  %s %s\n\n", r.Endpoint, r.Runtime, r.Version)
	for i := 0; i < len(r.Checks); i++ {
		alike := 1
		for i+alike < len(r.Checks) && r.Checks[i].skippedLike(r.Checks[i+alike]) {
			alike++
		}
		if alike == 1 {
			r.Checks[i].writeText(&text)
			continue
		}
		fmt.Fprintf(&text, "skip  %-*s  %s\n", nameWidth, fmt.Sprintf("%d checks", alike), r.Checks[i].Detail)
		i += alike - 1
	}
	passed, skipped, failed := r.Count()
	fmt.Fprintf(&text, "\n%d passed, %d skipped, %d failed\n", passed, skipped, failed)
	_, err := io.WriteString(w, text.String())
	return err
}

// skippedLike tells whether both checks were skipped for the same reason.
func (c Check) skippedLike(other Check) bool {
	return c.Skipped && other.Skipped && c.Detail == other.Detail
}

func (c Check) writeText(text *strings.Builder) {
	const indent = 6 + nameWidth + 2
	margin := strings.Repeat(" ", indent)
	switch {
	case c.OK:
		fmt.Fprintf(text, "ok    %-*s  %s\n", nameWidth, c.Name, c.Got)
	case c.Skipped:
		fmt.Fprintf(text, "skip  %-*s  %s\n", nameWidth, c.Name, wrap(c.Detail, margin))
	default:
		fmt.Fprintf(text, "FAIL  %-*s  got:  %s\n%swant: %s\n", nameWidth, c.Name, wrap(c.Got, margin+"      "), margin, c.Want)
		if c.Detail != "" {
			fmt.Fprintf(text, "%s%s\n", margin, wrap(c.Detail, margin))
		}
	}
}

// textWidth is the longest line of wrapped text.
const textWidth = 96

// wrap breaks text between words; margin goes before each line but the first.
func wrap(text, margin string) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(margin)+len(line)+1+len(word) > textWidth {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n"+margin)
}
