package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"

	"k8s.io/klog/v2"
)

// Pool answers what the commands ask.
type Pool interface {
	Status() PoolStatus
	// Ranges yields what is not free.
	Ranges() iter.Seq[Range]
	Reserve(context.Context, Reservation) error
	Release(context.Context, Release) error
	// Leaks is what the last look for leaked ranges found; with fresh a look is taken first.
	Leaks(ctx context.Context, fresh bool) Leaks
}

// Checker tells what is wrong with the pool: what was found last, or with fresh after looking now.
type Checker interface {
	Check(ctx context.Context, fresh bool) Check
}

// readTimeout bounds a request's headers; they come from a command on the same machine.
const readTimeout = 10 * time.Second

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, listener net.Listener, pool Pool, checker Checker) error {
	server := &http.Server{
		Handler:           handler(pool, checker),
		ReadHeaderTimeout: readTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func handler(pool Pool, checker Checker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/pool/status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusOK, pool.Status())
	})
	mux.HandleFunc("GET /v1/pool/ranges", func(w http.ResponseWriter, r *http.Request) {
		replyList(w, r, pool.Ranges())
	})
	mux.HandleFunc("POST /v1/pool/reservations", func(w http.ResponseWriter, r *http.Request) { act(w, r, pool.Reserve) })
	mux.HandleFunc("POST /v1/pool/release", func(w http.ResponseWriter, r *http.Request) { act(w, r, pool.Release) })
	mux.HandleFunc("GET /v1/pool/leaks", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusOK, pool.Leaks(r.Context(), false))
	})
	mux.HandleFunc("POST /v1/pool/leaks", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusOK, pool.Leaks(r.Context(), true))
	})
	for method, fresh := range map[string]bool{http.MethodGet: false, http.MethodPost: true} {
		mux.HandleFunc(method+" /v1/pool/check", func(w http.ResponseWriter, r *http.Request) {
			reply(w, r, http.StatusOK, checker.Check(r.Context(), fresh))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusNotFound, failure{"this version of userns-shim does not know " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// maxBody bounds a request's body in bytes.
const maxBody = 64 << 10

// act decodes a request, does it, and answers with nothing or why not.
func act[T any](w http.ResponseWriter, r *http.Request, do func(context.Context, T) error) {
	var request T
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	} else {
		err = do(r.Context(), request)
	}
	switch {
	case err == nil:
		reply(w, r, http.StatusOK, struct{}{})
	case errors.Is(err, ErrInvalid):
		reply(w, r, http.StatusBadRequest, failure{err.Error()})
	case errors.Is(err, ErrNotFound):
		reply(w, r, http.StatusNotFound, failure{err.Error()})
	case errors.Is(err, ErrConflict):
		reply(w, r, http.StatusConflict, failure{err.Error()})
	default:
		reply(w, r, http.StatusInternalServerError, failure{err.Error()})
	}
}

func reply(w http.ResponseWriter, r *http.Request, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Admin client went away", "path", r.URL.Path, "err", err)
	}
}

// replyList answers with an array, of which it holds one element at a time.
func replyList[T any](w http.ResponseWriter, r *http.Request, list iter.Seq[T]) {
	w.Header().Set("Content-Type", "application/json")
	if err := writeList(w, list); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Admin client went away", "path", r.URL.Path, "err", err)
	}
}

func writeList[T any](w io.Writer, list iter.Seq[T]) error {
	encoder := json.NewEncoder(w)
	before := "["
	for element := range list {
		if _, err := io.WriteString(w, before); err != nil {
			return err
		}
		if err := encoder.Encode(element); err != nil {
			return err
		}
		before = ","
	}
	end := "]\n"
	if before == "[" {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}
