package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/image"
)

func TestCredentials(t *testing.T) {
	const encoded = "dXNlcjpwYTpzcw==" // user:pa:ss
	for name, c := range map[string]struct {
		auth         *image.Auth
		host         string
		user, secret string
		wrong        bool
	}{
		"none":                   {nil, "r.example", "", "", false},
		"password":               {&image.Auth{Username: "u", Password: "p"}, "r.example", "u", "p", false},
		"encoded":                {&image.Auth{Auth: encoded}, "r.example", "user", "pa:ss", false},
		"identity goes first":    {&image.Auth{Username: "u", IdentityToken: "t", Auth: encoded}, "r.example", "", "t", false},
		"this server":            {&image.Auth{Username: "u", ServerAddress: "r.example:5000"}, "r.example:5000", "u", "", false},
		"other port":             {&image.Auth{Username: "u", ServerAddress: "r.example:5000"}, "r.example", "", "", false},
		"other server":           {&image.Auth{Username: "u", ServerAddress: "https://q.example/v2"}, "r.example", "", "", false},
		"Docker Hub by its name": {&image.Auth{Username: "u", ServerAddress: "https://index.docker.io/v1/"}, "registry-1.docker.io", "u", "", false},
		"malformed server":       {&image.Auth{Username: "u", ServerAddress: "http://%zz"}, "r.example", "", "", false},
		"no base64":              {&image.Auth{Auth: "%"}, "r.example", "", "", true},
		"no colon":               {&image.Auth{Auth: "dXNlcg=="}, "r.example", "", "", true},
		"nothing in it":          {&image.Auth{}, "r.example", "", "", false},
	} {
		user, secret, err := credentials(c.auth, c.host)
		if user != c.user || secret != c.secret || errdefs.IsInvalidArgument(err) != c.wrong {
			t.Errorf("%s: %q, %q, %v, want %q, %q", name, user, secret, err, c.user, c.secret)
		}
		if err != nil && strings.Contains(err.Error(), c.auth.Auth) {
			t.Errorf("%s: the error tells the credentials", name)
		}
	}
}

func TestPullKey(t *testing.T) {
	seen := make(map[string]string)
	for name, req := range map[string]image.PullRequest{
		"plain":             {Ref: "a"},
		"other image":       {Ref: "b"},
		"other snapshotter": {Ref: "a", Snapshotter: "native"},
		"with credentials":  {Ref: "a", Auth: &image.Auth{Username: "u", Password: "secret"}},
		"others":            {Ref: "a", Auth: &image.Auth{Username: "u", Password: "secret2"}},
	} {
		key, err := pullKey(req)
		if err != nil || seen[key] != "" || strings.Contains(key, "secret") {
			t.Errorf("%s: key %q, %v, the same as of %q", name, key, err, seen[key])
		}
		seen[key] = name
	}
}

func TestExplainPull(t *testing.T) {
	status := func(code int) error { return remoteerrors.ErrUnexpectedStatus{StatusCode: code} }
	for _, c := range []struct {
		err error
		is  func(error) bool
	}{
		{status(http.StatusUnauthorized), errdefs.IsUnauthorized},
		{status(http.StatusForbidden), errdefs.IsPermissionDenied},
		{status(http.StatusNotFound), errdefs.IsNotFound},
		{docker.ErrInvalidAuthorization, errdefs.IsUnauthorized},
		{&url.Error{Op: "Get", Err: syscall.ECONNREFUSED}, errdefs.IsUnavailable},
		{io.ErrUnexpectedEOF, errdefs.IsUnavailable},
		{errors.New("write /blobs/1: no space left on device: unknown"), func(err error) bool { return errors.Is(err, syscall.ENOSPC) }},
		{errors.New("disk quota exceeded"), func(err error) bool { return errors.Is(err, syscall.EDQUOT) }},
		{status(http.StatusBadGateway), errdefs.IsUnavailable},
		{status(http.StatusTooManyRequests), errdefs.IsUnavailable},
		{status(http.StatusTeapot), func(err error) bool { return errors.As(err, new(remoteerrors.ErrUnexpectedStatus)) }},
	} {
		if got := explainPull(t.Context(), c.err); !c.is(got) {
			t.Errorf("explain %v: %v", c.err, got)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&stalledError{timeout: time.Minute})
	if got := explainPull(ctx, context.Canceled); !errors.Is(got, context.DeadlineExceeded) || !strings.Contains(got.Error(), "no progress for 1m0s") {
		t.Errorf("explain a pull that stalled: %v", got)
	}
}

func TestShimStdio(t *testing.T) {
	for _, c := range []struct{ in, want container.Stdio }{
		{container.Stdio{}, container.Stdio{}},
		{container.Stdio{Stdout: "o"}, container.Stdio{Stdout: "o", Stderr: devNull}},
		{container.Stdio{Stderr: "e"}, container.Stdio{Stdout: devNull, Stderr: "e"}},
		{container.Stdio{Stdin: "i"}, container.Stdio{Stdin: "i", Stdout: devNull, Stderr: devNull}},
		{container.Stdio{Stdout: "o", Terminal: true}, container.Stdio{Stdout: "o", Terminal: true}},
	} {
		if got := shimStdio(c.in); got != c.want {
			t.Errorf("shimStdio(%+v) = %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestGroupOf(t *testing.T) {
	for want, annotations := range map[string]map[string]string{
		"id":      nil,
		"sandbox": {"io.kubernetes.cri.sandbox-id": "sandbox"},
		"shared":  {"io.kubernetes.cri.sandbox-id": "sandbox", "io.containerd.runc.v2.group": "shared"},
	} {
		if got := groupOf("id", &specs.Spec{Annotations: annotations}); got != want {
			t.Errorf("group by %v is %s, want %s", annotations, got, want)
		}
	}
}

func TestReadFeatures(t *testing.T) {
	yes, no := true, false
	idmap := func(enabled *bool) *features.Linux {
		return &features.Linux{MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: enabled}}}
	}
	for name, c := range map[string]struct {
		told       features.Features
		idmap, rro bool
	}{
		"nothing":       {features.Features{}, false, false},
		"all":           {features.Features{Linux: idmap(&yes), MountOptions: []string{"ro", "rro"}}, true, true},
		"turned off":    {features.Features{Linux: idmap(&no), MountOptions: []string{"ro"}}, false, false},
		"not said":      {features.Features{Linux: idmap(nil)}, false, false},
		"no extensions": {features.Features{Linux: &features.Linux{}}, false, false},
	} {
		if got := readFeatures(&c.told); got.IDMappedMounts != c.idmap || got.RecursiveROMount != c.rro || got.Version != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestReadFeaturesOfCrun(t *testing.T) {
	for version, chowns := range map[string]bool{"1.21": true, "1.23.1": true, "1.24": false, "1.24.0-rc1": false, "1.28": false, "2.0": false, "odd": true} {
		told := features.Features{Annotations: map[string]string{"run.oci.crun.version": version}}
		if got := readFeatures(&told); got.ChownsDevices != chowns || got.Version != version {
			t.Errorf("crun %s: %+v, want it to chown devices: %t", version, got, chowns)
		}
	}
}
