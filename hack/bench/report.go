package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The figures, as they are named in the table and in the JSON file.
const (
	startTime       = "pod start to running"
	runPodSandbox   = "RunPodSandbox"
	createContainer = "CreateContainer"
	startContainer  = "StartContainer"

	stopTime         = "stop and remove"
	stopContainer    = "StopContainer"
	stopPodSandbox   = "StopPodSandbox"
	removeContainer  = "RemoveContainer"
	removePodSandbox = "RemovePodSandbox"

	startRate = "starts per second, side by side"
	startCPU  = "processor time per start"
	stopRate  = "removals per second, side by side"
	stopCPU   = "processor time per removal"

	podMemory    = "memory per idle pod (PSS)"
	shimMemory   = "shim"
	insideMemory = "the pod's processes"
	daemonMemory = "memory of the daemons (PSS)"
)

// quiet is the share of the processors that other programs may have before the table says what that means.
const quiet = 0.1

// line is a figure's place in the table.
type line struct {
	figure, unit string
	part         bool // of the last one that is none
}

func lines() []line {
	return []line{
		{startTime, "ms", false},
		{runPodSandbox, "ms", true},
		{createContainer, "ms", true},
		{startContainer, "ms", true},
		{stopTime, "ms", false},
		{stopContainer, "ms", true},
		{stopPodSandbox, "ms", true},
		{removeContainer, "ms", true},
		{removePodSandbox, "ms", true},
		{startRate, "1/s", false},
		{startCPU, "ms", true},
		{stopRate, "1/s", false},
		{stopCPU, "ms", true},
		{podMemory, "MiB", false},
		{shimMemory, "MiB", true},
		{insideMemory, "MiB", true},
		{daemonMemory, "MiB", false},
	}
}

// figures are the samples by figure. The nil figures forget.
type figures map[string][]float64

func (f figures) add(figure string, value float64) {
	if f != nil {
		f[figure] = append(f[figure], value)
	}
}

// report is the JSON file.
type report struct {
	Started    time.Time `json:"started"`
	Seconds    float64   `json:"seconds"`
	Kernel     string    `json:"kernel"`
	CPUs       int       `json:"cpus"`
	LoadBefore float64   `json:"loadBefore"` // average of a minute
	LoadAfter  float64   `json:"loadAfter"`
	Others     float64   `json:"othersShare"` // of the processors, from 0 to 1
	Pods       int       `json:"podsPerPart"`
	Rounds     int       `json:"rounds"`
	Parallel   int       `json:"parallel"`
	Runtimes   []string  `json:"runtimes"`
	Figures    []row     `json:"figures"`
}

// row is one figure of both runtimes, in their order.
type row struct {
	Name     string   `json:"name"`
	Unit     string   `json:"unit"`
	Part     bool     `json:"part,omitempty"`
	Runtimes []column `json:"runtimes"`
	Ratio    float64  `json:"ratio"` // the first runtime's median to the second's; 0 when that is 0
}

type column struct {
	Median  float64   `json:"median"`
	Samples []float64 `json:"samples"`
}

// describe is what is known before the benchmark.
func describe(opts options) (report, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return report{}, err
	}
	before, err := load()
	return report{
		Started: time.Now().UTC().Truncate(time.Second), Kernel: strings.TrimSpace(string(kernel)), CPUs: runtime.NumCPU(),
		LoadBefore: before, Pods: opts.pods, Parallel: opts.parallel,
	}, err
}

// finish prints the table and writes the file.
func (r report) finish(out io.Writer, sides []*side, path string) error {
	var samples []figures
	for _, s := range sides {
		r.Runtimes = append(r.Runtimes, s.version)
		samples = append(samples, s.figures)
	}
	var err error
	if r.Figures, err = rows(samples[0], samples[1]); err != nil {
		return err
	}
	if err := r.print(out); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	fmt.Fprintf(out, "\nAll samples: %s\n", path)
	return nil
}

func rows(first, second figures) ([]row, error) {
	var all []row
	for _, l := range lines() {
		r := row{Name: l.figure, Unit: l.unit, Part: l.part}
		for _, samples := range []figures{first, second} {
			if len(samples[l.figure]) == 0 {
				return nil, fmt.Errorf("figure %q has no samples", l.figure)
			}
			r.Runtimes = append(r.Runtimes, column{Median: median(samples[l.figure]), Samples: samples[l.figure]})
		}
		if base := r.Runtimes[1].Median; base != 0 {
			r.Ratio = r.Runtimes[0].Median / base
		}
		all = append(all, r)
	}
	return all, nil
}

// median wants at least one sample.
func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func (r report) print(out io.Writer) error {
	fmt.Fprintf(out, "\nMedians of %d rounds; %d pods one after another and %d pods %d at a time in each. Linux %s, %d processors.\n",
		r.Rounds, r.Pods, r.Pods, r.Parallel, r.Kernel, r.CPUs)
	fmt.Fprintf(out, "Load average %.1f before and %.1f after; other programs had %.0f %% of the processors.\n",
		r.LoadBefore, r.LoadAfter, 100*r.Others)
	if r.Others > quiet {
		fmt.Fprintln(out, "That is much: the times are only indicative. Ratios, processor time and memory suffer less.")
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "%-36s\t%s\t%s\tratio\t\n", "hostUsers: false", r.Runtimes[0], r.Runtimes[1])
	for _, f := range r.Figures {
		name := f.Name
		if f.Part {
			name = "  " + name
		}
		fmt.Fprintf(table, "%-36s\t%.1f %-3s\t%.1f %-3s\t%.2f\t\n",
			name, f.Runtimes[0].Median, f.Unit, f.Runtimes[1].Median, f.Unit, f.Ratio)
	}
	return table.Flush()
}
