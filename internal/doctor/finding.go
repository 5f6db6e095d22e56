package doctor

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Severity says how much a finding matters.
type Severity string

// The severities, the worst first. An error keeps pods, or all with a user namespace, from running or from being safe. A warning
// does so under some circumstances. Unknown is what could not be found out. Info is worth knowing, and ok is well.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Unknown Severity = "unknown"
	Info    Severity = "info"
	OK      Severity = "ok"
)

// Severities are all of them, the worst first.
func Severities() []Severity { return []Severity{Error, Warning, Unknown, Info, OK} }

// Worse says whether s is as bad as o, or worse.
func (s Severity) Worse(o Severity) bool {
	return slices.Index(Severities(), s) <= slices.Index(Severities(), o)
}

// Finding is one thing that was looked at.
type Finding struct {
	Check    string   `json:"check"` // what was looked at, such as "kernel"
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	// Remedy is a command or a line of configuration, for all that is worse than info.
	Remedy string `json:"remedy,omitempty"`
}

// Report is all that was looked at.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Sort puts the worst first; checks of one severity stay in their order.
func (r Report) Sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(Severities(), a.Severity), slices.Index(Severities(), b.Severity))
	})
}

// Worst is the severity of the worst finding, OK for none.
func (r Report) Worst() Severity {
	worst := OK
	for _, f := range r.Findings {
		if f.Severity.Worse(worst) {
			worst = f.Severity
		}
	}
	return worst
}

// textWidth is the longest line of a message in characters, and margin what stands before it.
const (
	textWidth   = 100
	severeWidth = 8
	checkWidth  = 12
)

// WriteText writes a line or more for each finding, and a summary.
func (r Report) WriteText(w io.Writer) error {
	var text strings.Builder
	margin := strings.Repeat(" ", severeWidth+checkWidth+2)
	count := map[Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
		fmt.Fprintf(&text, "%-*s %-*s %s\n", severeWidth, f.Severity, checkWidth, f.Check, wrap(f.Message, margin))
		if f.Remedy != "" {
			fmt.Fprintf(&text, "%s-> %s\n", margin, f.Remedy)
		}
	}
	var parts []string
	for _, s := range Severities() {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	fmt.Fprintf(&text, "\n%s\n", strings.Join(parts, ", "))
	_, err := io.WriteString(w, text.String())
	return err
}

// wrap breaks text between words. Remedies are not broken: they are to be copied.
func wrap(text, margin string) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > textWidth-len(margin) {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n"+margin)
}
