package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/userns-shim/userns-shim/internal/config"
)

// agentFlags are the options of agent.
type agentFlags struct {
	listen  []string
	metrics string
}

func agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Pass the node's metrics on, and tell whether its userns-shim answers",
		Long: `Serve /metrics with what the userns-shim of this node has there, which listens on
loopback; /readyz, which is well while that answers; and /livez. It is what the pod of
manifests/ runs when it has installed userns-shim, needs no privilege, and passes nothing else on.`,
		Example: "  userns-shim agent --listen 10.0.0.1:9467",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayVar(&f.listen, "listen", []string{"127.0.0.1:9465"}, "`address` to serve on; can be repeated")
	cmd.Flags().StringVar(&f.metrics, "metrics", "http://"+config.Default().MetricsListen, "`URL` that has the node's /metrics; empty is none, and always ready")
	return cmd
}

func (f *agentFlags) run(ctx context.Context) error {
	handler, err := agentHandler(f.metrics)
	if err != nil {
		return usageError{err}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, addr := range f.listen {
		listener, err := net.Listen("tcp", bracketed(addr))
		var wrong *net.AddrError
		if errors.As(err, &wrong) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return server.Shutdown(clean)
		})
	}
	return group.Wait()
}

// bracketed puts an IPv6 address into brackets: Kubernetes expands $(HOST_IP):9467 without.
func bracketed(addr string) string {
	host, port := addr, ""
	if i := strings.LastIndex(addr, ":"); i >= 0 {
		host, port = addr[:i], addr[i+1:]
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return net.JoinHostPort(host, port)
	}
	return addr
}

func agentHandler(metrics string) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	if metrics == "" {
		mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
		return mux, nil
	}
	target, err := url.Parse(metrics)
	if err != nil || target.Scheme != "http" || target.Host == "" {
		return nil, fmt.Errorf("metrics %q: want http://host:port", metrics)
	}
	mux.Handle("GET /metrics", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 4*time.Second)
		defer cancel()
		if err := answers(ctx, target.JoinPath("metrics").String()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux, nil
}

// answers asks for a page and throws it away.
func answers(ctx context.Context, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", page, resp.Status)
	}
	return nil
}
