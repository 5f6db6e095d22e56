package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAgentPassesMetricsOn and nothing else of what is on loopback, and is ready while that answers.
func TestAgentPassesMetricsOn(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "page "+r.URL.Path)
	}))
	defer node.Close()
	handler, err := agentHandler(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get(http.MethodGet, "/metrics"); code != http.StatusOK || body != "page /metrics" {
		t.Errorf("/metrics is %d, %q", code, body)
	}
	for path, want := range map[string]int{"/readyz": 200, "/livez": 200, "/statusz": 404, "/": 404, "/metrics/x": 404} {
		if code, _ := get(http.MethodGet, path); code != want {
			t.Errorf("%s is %d, want %d", path, code, want)
		}
	}
	if code, _ := get(http.MethodPost, "/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics is %d", code)
	}
	node.Close()
	for path, want := range map[string]int{"/readyz": 503, "/livez": 200, "/metrics": 502} {
		if code, _ := get(http.MethodGet, path); code != want {
			t.Errorf("without a node's userns-shim %s is %d, want %d", path, code, want)
		}
	}
	if _, err := agentHandler("ftp://x"); err == nil {
		t.Error("ftp passes for a URL of metrics")
	}
}

// TestAgentListensOnAll addresses that it is given, and ends with its context.
func TestAgentListensOnAll(t *testing.T) {
	for try := 0; ; try++ {
		err := listensOnAll(t, freePort(t), freePort(t))
		if err == nil {
			break
		}
		// Between the look for a free port and its use somebody else may take it.
		if !errors.Is(err, syscall.EADDRINUSE) || try == 5 {
			t.Fatal(err)
		}
	}
	for addr, want := range map[string]string{"fd00::1:9467": "[fd00::1]:9467", "[::1]:80": "[::1]:80", "10.0.0.1:80": "10.0.0.1:80", ":80": ":80"} {
		if got := bracketed(addr); got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
}

// listensOnAll runs the agent until it answers on each of the ports, and returns how it ended.
func listensOnAll(t *testing.T, ports ...string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		f := agentFlags{listen: []string{"127.0.0.1:" + ports[0], "127.0.0.1:" + ports[1]}}
		ended <- f.run(ctx)
	}()
	for _, port := range ports {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			err := answers(ctx, "http://127.0.0.1:"+port+"/livez")
			if err == nil {
				break
			}
			select {
			case err := <-ended:
				return cmp.Or(err, errors.New("it ended"))
			default:
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	cancel()
	return <-ended
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strings.TrimPrefix(l.Addr().String(), "127.0.0.1:")
}
