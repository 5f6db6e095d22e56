package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// registryHosts says where the images of a registry are fetched: from the hosts that a hosts.toml
// directory names, in order, else from the registry itself. Loopback is spoken to in plain HTTP
// where it does not answer TLS.
func (e *Engine) registryHosts(ctx context.Context, auth *image.Auth, p *progress) docker.RegistryHosts {
	hosts := config.ConfigureHosts(ctx, config.HostOptions{
		HostDir:      hostDirs(e.opts.RegistryConfigPath),
		Credentials:  func(host string) (string, string, error) { return credentials(auth, host) },
		UpdateClient: p.watch,
	})
	if auth == nil || auth.RegistryToken == "" {
		return hosts
	}
	return func(name string) ([]docker.RegistryHost, error) {
		found, err := hosts(name)
		for i := range found {
			if meant(auth, found[i].Host) {
				found[i].Authorizer = bearer(auth.RegistryToken)
			}
		}
		return found, err
	}
}

// hostDirs looks a registry up in each of several directories, which are separated by colons.
func hostDirs(paths string) func(string) (string, error) {
	return func(host string) (string, error) {
		for _, root := range filepath.SplitList(paths) {
			dir, err := config.HostDirFromRoot(root)(host)
			if err == nil || !errdefs.IsNotFound(err) {
				return dir, err
			}
		}
		return "", errdefs.ErrNotFound
	}
}

// credentials returns user name and secret for a host; a secret without a name is an identity token.
func credentials(auth *image.Auth, host string) (username, secret string, err error) {
	switch {
	case auth == nil || !meant(auth, host):
		return "", "", nil
	case auth.IdentityToken != "":
		return "", auth.IdentityToken, nil
	case auth.Username != "":
		return auth.Username, auth.Password, nil
	case auth.Auth != "":
		return decodeAuth(auth.Auth)
	}
	return "", "", nil
}

func decodeAuth(auth string) (username, password string, err error) {
	plain, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return "", "", fmt.Errorf("credentials are not valid base64: %w", errdefs.ErrInvalidArgument)
	}
	username, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
	if !ok {
		return "", "", fmt.Errorf("credentials are not of the form user:password: %w", errdefs.ErrInvalidArgument)
	}
	return username, password, nil
}

// meant says whether credentials may be sent to a host. Those without a server address are meant for
// every host that the node is configured to ask, as in containerd's CRI plugin.
func meant(auth *image.Auth, host string) bool {
	server := auth.ServerAddress
	if server == "" {
		return true
	}
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	return err == nil && canonicalHost(u.Host) == canonicalHost(host)
}

// canonicalHost maps the names that Docker Hub goes by to one: clients store its credentials under
// https://index.docker.io/v1/.
func canonicalHost(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// bearer authorizes requests by a token that the client got from the registry itself.
type bearer string

func (b bearer) Authorize(_ context.Context, req *http.Request) error {
	req.Header.Set("Authorization", "Bearer "+string(b))
	return nil
}

func (b bearer) AddResponses(context.Context, []*http.Response) error {
	return fmt.Errorf("the registry token is refused: %w", docker.ErrInvalidAuthorization)
}

// explainPull gives the error of a pull the class that says what can be done about it.
func explainPull(ctx context.Context, err error) error {
	err = explainFull(err)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("%w: %w", errdefs.ErrUnauthenticated, err)
	}
	var broken *url.Error // no answer to a request
	if errors.As(err, &broken) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	var status remoteerrors.ErrUnexpectedStatus
	if !errors.As(err, &status) {
		return err
	}
	switch status.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", errdefs.ErrUnauthenticated, err)
	case http.StatusForbidden:
		return fmt.Errorf("%w: %w", errdefs.ErrPermissionDenied, err)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	if status.StatusCode >= http.StatusInternalServerError || status.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
	}
	return err
}
