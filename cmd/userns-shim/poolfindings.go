package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
)

// poolChecker puts together what is wrong with the pool, for admin.Checker.
type poolChecker struct {
	view    poolView
	scanner *foreign.Scanner
	// limited says that something limits what kubelet draws from.
	limited bool
}

var _ admin.Checker = poolChecker{}

// severities are those of findings, the worst first.
var severities = []string{admin.SeverityError, admin.SeverityWarning, admin.SeverityInfo}

// Check implements admin.Checker.
func (c poolChecker) Check(ctx context.Context, fresh bool) admin.Check {
	report, check := c.scanner.Last(), admin.Check{Findings: []admin.Finding{}}
	if fresh {
		if now, err := c.scanner.Scan(ctx); err == nil {
			report = now
		}
	}
	if report != nil {
		check.Scanned = report.Began
		check.Findings = append(check.Findings, foreignFindings(*report)...)
	}
	pool := c.view.pool
	leaks := c.view.Leaks(ctx, fresh)
	check.Compared = leaks.Began
	check.Findings = append(check.Findings, leakFindings(leaks)...)
	check.Findings = append(check.Findings, ledgerFindings(pool.Findings())...)
	check.Findings = append(check.Findings, extentFindings(pool.Extents(idpool.SegmentKubelet), pool.Extents(idpool.SegmentPool), c.limited)...)
	sortFindings(check.Findings)
	return check
}

func sortFindings(all []admin.Finding) {
	slices.SortStableFunc(all, func(a, b admin.Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Start, b.Start),
		)
	})
}

// foreignFindings are what the scanner found.
func foreignFindings(r foreign.Report) []admin.Finding {
	var out []admin.Finding
	for _, o := range r.Owners {
		out = append(out, foreignFinding(o))
	}
	for _, kind := range foreign.Kinds() {
		kept := 0
		for _, o := range r.Owners {
			if o.Kind == kind {
				kept++
			}
		}
		if more := r.Counts[kind] - kept; more > 0 {
			out = append(out, admin.Finding{
				Severity: admin.SeverityWarning, Code: "foreign-" + string(kind), Message: fmt.Sprintf("%d more owners of the kind %s are not shown", more, kind),
				Remedy: "see to those that are shown, and look again: userns-shim pool check --fresh",
			})
		}
	}
	for _, f := range r.Failed {
		out = append(out, admin.Finding{
			Severity: admin.SeverityWarning, Code: "scan-incomplete",
			Message: fmt.Sprintf("the source %s was not read to its end: %v", f.Source, f.Err),
			Remedy:  cmp.Or(scanRemedies[f.Source], "see why "+f.Source+" cannot be read, and look again: userns-shim pool check --fresh"),
		})
	}
	return out
}

// scanRemedies say what can be done about sources that cannot be read.
var scanRemedies = map[string]string{
	"name-service": "see what hangs: getent passwd; /etc/nsswitch.conf names its services",
}

// foreignFinding judges one owner. Ids that a pod has too, or that somebody uses now, are an error.
func foreignFinding(o foreign.Owner) admin.Finding {
	f := admin.Finding{
		Severity: admin.SeverityWarning,
		Code:     "foreign-" + string(o.Kind),
		Start:    o.Range.Start,
		Length:   o.Range.Length,
		Pod:      string(o.Pod),
		Message:  foreignWords[o.Kind] + " " + o.Who + " has ids of the pool",
	}
	if o.Pod != "" {
		f.Message += ", which a pod has too"
	}
	if o.Where != "" {
		f.Message += "; " + o.Where
	}
	if (o.Pod != "" || o.Kind.Running()) && o.Kind != foreign.KindPinCopy { // of which no process has an id
		f.Severity = admin.SeverityError
	}
	f.Remedy = foreignRemedy(o)
	return f
}

var foreignWords = map[foreign.Kind]string{
	foreign.KindNamespace:  "the user namespace of",
	foreign.KindProcess:    "the",
	foreign.KindPinCopy:    "a namespace of a pod that is gone, still mounted for",
	foreign.KindUser:       "the user",
	foreign.KindGroup:      "the group",
	foreign.KindSubUID:     "in the list of subordinate uids",
	foreign.KindSubGID:     "in the list of subordinate gids",
	foreign.KindNSResource: "the user namespace that systemd-nsresourced made as",
	foreign.KindNspawn:     "a container of",
	foreign.KindStorage:    "of containers-storage the",
	foreign.KindLXC:        "of Incus or LXD the",
}

// foreignRemedy is what an operator types. A range that no pod has can be reserved; what a pod has cannot.
func foreignRemedy(o foreign.Owner) string {
	switch o.Kind {
	case foreign.KindSubUID, foreign.KindSubGID:
		return "give it other ids, or take them out of idPool in the configuration: edit " + o.Where
	case foreign.KindUser, foreign.KindGroup:
		return "give it another id, or take these out of idPool in the configuration"
	case foreign.KindPinCopy:
		// No command to enter the pod's file system by: nsenter would run the pod's own umount, as the host's root.
		return "it keeps no range from pods, but who enters it has the ids of the next one there: restart the pod of that process, or unmount it"
	}
	if o.Pod != "" {
		return "end one of the two; userns-shim pool who " + fmt.Sprint(o.Range.Start) + " names the pod"
	}
	return "end it, or keep pods off: userns-shim pool reserve NAME " + wholeSlots(o.Range).String()
}

// wholeSlots are those of 65,536 ids that r touches.
func wholeSlots(r idpool.Range) idpool.Range {
	first := r.Start - r.Start%idpool.Unit
	end := (r.End() + idpool.Unit - 1) / idpool.Unit * idpool.Unit
	return idpool.Range{Start: first, Length: uint32(min(end, 1<<32-1) - uint64(first))}
}

// leakFindings are what package reconcile found. What was repaired is told as well.
func leakFindings(l admin.Leaks) []admin.Finding {
	var out []admin.Finding
	for _, leak := range l.Leaks {
		f := admin.Finding{
			Severity: admin.SeverityError, Code: "leak-" + leak.Kind, Start: leak.Start, Length: leak.Length, Pod: leak.Pod,
			Message: leak.Found, Remedy: leak.Remedy,
		}
		if leak.Repair != "" {
			f.Severity = admin.SeverityInfo
			f.Message += "; repaired: " + leak.Repair
		}
		out = append(out, f)
	}
	if l.Error != "" {
		out = append(out, admin.Finding{
			Severity: admin.SeverityWarning, Code: "leaks-unknown",
			Message: "leaked ranges were not looked for everywhere: " + strings.ReplaceAll(l.Error, "\n", "; "),
			Remedy:  "userns-shim doctor tells whether containerd and the database are well; then look again: userns-shim pool check --fresh",
		})
	}
	return out
}

// ledgerFindings are what the pool says of its own records.
func ledgerFindings(list []idpool.Finding) []admin.Finding {
	words := map[idpool.FindingKind][2]string{
		idpool.FindingOutside:   {"these ids are in use or rest, and are in no extent", "nothing is lost: they go when their pod does, or when quarantine ends"},
		idpool.FindingNotStrict: {"these ids are in use or rest, and no pod gets them while idPool.claims is strict", "remove the pod, and it gets others; what is in quarantine goes by itself"},
		idpool.FindingSigned:    {"these ids are above 2147483647, which some programs take for negative", "give kubelet lower ids in /etc/subuid and /etc/subgid"},
	}
	var out []admin.Finding
	for _, f := range list {
		if f.Kind == idpool.FindingExtentsMeet {
			continue // extentFindings tells of the configuration
		}
		out = append(out, admin.Finding{
			Severity: admin.SeverityWarning, Code: string(f.Kind), Start: f.Range.Start, Length: f.Range.Length, Pod: string(f.Pod),
			Message: words[f.Kind][0], Remedy: words[f.Kind][1],
		})
	}
	return out
}
