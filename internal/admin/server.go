package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"k8s.io/klog/v2"
)

// Pool answers what the commands ask.
type Pool interface {
	Status() PoolStatus
	Ranges() []Range
}

// readTimeout bounds a request's headers; they come from a command on the same machine.
const readTimeout = 10 * time.Second

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, listener net.Listener, pool Pool) error {
	server := &http.Server{
		Handler:           handler(pool),
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

func handler(pool Pool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/pool/status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusOK, pool.Status())
	})
	mux.HandleFunc("GET /v1/pool/ranges", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusOK, pool.Ranges())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, r, http.StatusNotFound, failure{"this version of userns-shim does not know " + r.Method + " " + r.URL.Path})
	})
	return mux
}

func reply(w http.ResponseWriter, r *http.Request, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		klog.FromContext(r.Context()).V(2).Info("Admin client went away", "path", r.URL.Path, "err", err)
	}
}
