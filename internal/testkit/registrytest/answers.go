package registrytest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
)

// Wrapper changes what a registry answers.
type Wrapper = func(next http.Handler) http.Handler

// IsBlob says whether a request is for a blob, config or layer.
func IsBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// Fail answers each request with a code and nothing else.
func Fail(code int) Wrapper {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
}

// Replay answers as was recorded.
func Replay(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // a client that goes away
}

// Spoil changes the last byte of the answers to some GETs.
func Spoil(which func(*http.Request) bool) Wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !which(r) {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			if body := answer.Body.Bytes(); len(body) > 0 {
				body[len(body)-1] ^= 1
			}
			Replay(w, answer)
		})
	}
}

// Held answers requests for blobs once it is released.
type Held struct {
	Release chan struct{} // to be closed
	Waiting chan struct{} // gets one element for each request that waits
	Blobs   atomic.Int64  // requests so far
}

// NewHeld returns one for a hundred requests at a time.
func NewHeld() *Held {
	return &Held{Release: make(chan struct{}), Waiting: make(chan struct{}, 100)}
}

// Wrap is a Wrapper.
func (h *Held) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsBlob(r) {
			h.Blobs.Add(1)
			h.Waiting <- struct{}{}
			select {
			case <-h.Release:
			case <-r.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
