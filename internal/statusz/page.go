// Package statusz renders a page that shows people the id pool as a map and what happened to its
// ranges lately. It keeps that history, in memory and bounded. It asks for the pool when the page
// is asked for, loads nothing from elsewhere, and decides nothing.
package statusz

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// Segment is one part of the pool. Counts are of ranges of 65,536 ids.
type Segment struct {
	Name                                                            string
	Extents                                                         []Extent
	Capacity, Free, Resting, Allocated, Quarantined, Reserved, Leak int
	EmptyIn                                                         string // in words, "-" for no forecast
	Ranges                                                          []Range
}

// Pool is the pool at one moment.
type Pool struct{ Segments []Segment }

// Options say what the page shows; all are required.
type Options struct {
	Version string
	Started time.Time
	Pool    func() Pool
	History *History
}

// Handler serves the page.
type Handler struct {
	opts Options
	// mu lets one page be made at a time: many that ask together would hold many copies of a large pool.
	mu sync.Mutex
}

// New returns a handler of the page.
func New(opts Options) *Handler { return &Handler{opts: opts} }

//go:embed page.html
var pageText string

// page is parsed once; a page that does not parse is a mistake of ours that every test sees.
var page = template.Must(template.New("statusz").Parse(pageText))

// maxListed bounds the list of ranges that lie in no extent.
const maxListed = 200

// view is what the template sees.
type view struct {
	Version  string
	Now      string
	Uptime   time.Duration
	Segments []segmentView
	Events   []eventView
}

type segmentView struct {
	Segment
	Blocks []block
	Each   int
	Listed []Range
	More   int // ranges that are not listed
}

type eventView struct {
	Event
	Time string
}

// headers keep a browser from running or loading anything, whatever a pod is called.
var headers = map[string]string{
	"Content-Type":            "text/html; charset=utf-8",
	"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":  "nosniff",
	"Referrer-Policy":         "no-referrer",
	"Cache-Control":           "no-store",
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := h.render(time.Now())
	if err != nil {
		klog.FromContext(r.Context()).Error(err, "Render the status page")
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	if _, err := w.Write(text); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Reader of the status page went away", "err", err)
	}
}

func (h *Handler) render(now time.Time) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := view{
		Version: h.opts.Version,
		Now:     now.UTC().Format(time.RFC3339),
		Uptime:  now.Sub(h.opts.Started).Round(time.Second),
	}
	for _, s := range h.opts.Pool().Segments {
		v.Segments = append(v.Segments, s.view())
	}
	for _, e := range h.opts.History.Latest() {
		v.Events = append(v.Events, eventView{Event: e, Time: e.At.UTC().Format(time.RFC3339)})
	}
	var out bytes.Buffer
	if err := page.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("render status page: %w", err)
	}
	return out.Bytes(), nil
}

func (s Segment) view() segmentView {
	v := segmentView{Segment: s}
	if len(s.Extents) == 0 { // external: there is no map of what nobody knows
		v.Listed = s.Ranges[:min(len(s.Ranges), maxListed)]
		v.More = len(s.Ranges) - len(v.Listed)
		return v
	}
	v.Blocks, v.Each = drawMap(s.Extents, s.Ranges)
	return v
}
