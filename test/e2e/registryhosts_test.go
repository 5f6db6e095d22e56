package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/userns-shim/userns-shim/internal/testkit/registrytest"
)

// below serves the registry below a path.
func below(path string) registrytest.Wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rest, ok := strings.CutPrefix(r.URL.Path, path)
			if !ok {
				http.NotFound(w, r)
				return
			}
			r.URL.Path = "/v2" + rest
			next.ServeHTTP(w, r)
		})
	}
}

// wanting lets in requests with a header.
func wanting(name, value string) registrytest.Wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(name) != value {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// TestHostsFallBack: mirrors are asked in the order of the file, then the registry itself; what the first lacks, or
// cannot do, the next one gives.
func TestHostsFallBack(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "hosts/image:v1", smallImage("fallback"))
	const dead = "127.0.0.1:1"
	good := newFront(t, n, nil)
	never := newFront(t, n, nil)
	for name, first := range map[string]string{
		"nobody listens":   dead,
		"it lacks it":      newFront(t, n, nil, registrytest.Fail(http.StatusNotFound)).Host,
		"it does not work": newFront(t, n, nil, registrytest.Fail(http.StatusInternalServerError)).Host,
		"it wants to know": newFront(t, n, nil, registrytest.RequireBasic("me", "secret")).Host,
	} {
		t.Run(name, func(t *testing.T) {
			before := good.requests(http.MethodGet, "/blobs/")
			writeHosts(t, n, "mirrored.example", fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n[host.\"http://%s\"]\n", never.Host, first, good.Host))
			pulled(t, n, "mirrored.example/hosts/image:v1")
			if good.requests(http.MethodGet, "/blobs/") == before {
				t.Error("the second mirror gave no blob")
			}
		})
	}
	if got := len(never.seen); got != 0 {
		t.Errorf("the registry itself was asked %d times, its mirrors had everything", got)
	}
	t.Run("no mirror has it", func(t *testing.T) {
		writeHosts(t, n, "mirrored.example", fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n", good.Host, newFront(t, n, nil, registrytest.Fail(http.StatusNotFound)).Host))
		pulled(t, n, "mirrored.example/hosts/image:v1")
	})
	t.Run("nobody has it", func(t *testing.T) {
		nothing := newFront(t, n, nil, registrytest.Fail(http.StatusNotFound)).Host
		writeHosts(t, n, "mirrored.example", fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n", nothing, nothing))
		_, err := tryPull(t.Context(), n, "mirrored.example/hosts/image:v1", nil)
		wantError(t, err, codes.NotFound, "mirrored.example/hosts/image:v1")
	})
	t.Run("nobody listens anywhere", func(t *testing.T) {
		writeHosts(t, n, "mirrored.example", fmt.Sprintf("server = \"http://%s\"\n", dead))
		_, err := tryPull(t.Context(), n, "mirrored.example/hosts/image:v1", nil)
		wantError(t, err, codes.Unavailable, "mirrored.example/hosts/image:v1", "connection refused")
	})
	t.Run("nobody works", func(t *testing.T) {
		writeHosts(t, n, "mirrored.example", fmt.Sprintf("server = \"http://%s\"\n", newFront(t, n, nil, registrytest.Fail(http.StatusInternalServerError)).Host))
		_, err := tryPull(t.Context(), n, "mirrored.example/hosts/image:v1", nil)
		wantError(t, err, codes.Unavailable, "mirrored.example/hosts/image:v1", "500")
	})
	t.Run("for every registry", func(t *testing.T) {
		writeHosts(t, n, "_default", fmt.Sprintf("[host.\"http://%s\"]\n", good.Host))
		pulled(t, n, "any.example/hosts/image:v1")
	})
	t.Run("a file that cannot be read", func(t *testing.T) {
		// As on containerd, the file counts as missing, and the log says why.
		writeHosts(t, n, "mirrored.example", "server = [\n")
		if _, err := tryPull(t.Context(), n, "mirrored.example/hosts/image:v1", nil); err == nil {
			t.Error("a registry without an address gives an image")
		}
		log, err := os.ReadFile(n.Daemon.Log)
		if want := filepath.Join(n.CertsDir, "mirrored.example", "hosts.toml"); err != nil || !strings.Contains(string(log), want) {
			t.Errorf("the log does not name %s: %v", want, err)
		}
	})
}

// TestHostsCapabilities: a host is asked for what it may be asked for and nothing else.
func TestHostsCapabilities(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "hosts/capable:v1", smallImage("capabilities"))
	// A tag is asked for where both are allowed; what it stands for may then come from a host that could lie
	// about tags.
	both, pulls, resolves := newFront(t, n, nil), newFront(t, n, nil), newFront(t, n, nil)
	writeHosts(t, n, "capable.example", fmt.Sprintf(`server = "http://127.0.0.1:1"
[host."http://%s"]
capabilities = ["resolve"]
[host."http://%s"]
capabilities = ["pull"]
[host."http://%s"]
capabilities = ["pull", "resolve"]
`, resolves.Host, pulls.Host, both.Host))
	pulled(t, n, "capable.example/hosts/capable:v1")
	if got := both.requests("HEAD", "/manifests/v1"); got == 0 {
		t.Error("the host that does both was not asked for the tag")
	}
	if got := both.requests("GET", "/blobs/"); got != 0 {
		t.Errorf("the host that comes last was asked for %d blobs, one before it has them", got)
	}
	if got := pulls.requests("HEAD", "/manifests/v1") + pulls.requests("GET", "/manifests/v1"); got != 0 {
		t.Errorf("the host that only pulls was asked for the tag %d times", got)
	}
	if got := pulls.requests("GET", "/blobs/"); got != 2 {
		t.Errorf("the host that pulls was asked for %d blobs, want config and layer", got)
	}
	if got := len(resolves.seen); got != 0 {
		t.Errorf("the host that may give nothing was asked %d times", got)
	}
}

// TestHostsPathsAndHeaders: override_path and header of hosts.toml.
func TestHostsPathsAndHeaders(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "hosts/elsewhere:v1", smallImage("elsewhere"))
	there := newFront(t, n, nil, below("/cache/registry"))
	writeHosts(t, n, "elsewhere.example", fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s/cache/registry\"]\noverride_path = true\n", there.Host))
	pulled(t, n, "elsewhere.example/hosts/elsewhere:v1")
	guarded := newFront(t, n, nil, wanting("X-Lab", "yes"))
	const ref = "guarded.example/hosts/elsewhere:v1"
	host := fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\n", guarded.Host)
	writeHosts(t, n, "guarded.example", host)
	if _, err := tryPull(t.Context(), n, ref, nil); err == nil {
		t.Error("a registry that wants a header gives an image without")
	}
	writeHosts(t, n, "guarded.example", host+fmt.Sprintf("[host.\"http://%s\".header]\nX-Lab = \"yes\"\n", guarded.Host))
	pulled(t, n, ref)
}

// identity is a certificate of the test's own authority, as files and for a server.
type identity struct {
	cert, key string
	pair      tls.Certificate
}

// authority makes certificates that nobody else trusts.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = a.sign(template, template, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.cert)
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

// sign signs with the parent's key, and itself where there is none.
func (a *authority) sign(template, parent *x509.Certificate, with *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if with == nil {
		with = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), with)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate for both ends of a connection on loopback.
func (a *authority) issue(name string) identity {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{{127, 0, 0, 1}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, der := a.sign(template, a.cert, a.key)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	id := identity{cert: a.write(name+".pem", "CERTIFICATE", der), key: a.write(name+".key", "PRIVATE KEY", private)}
	if id.pair, err = tls.LoadX509KeyPair(id.cert, id.key); err != nil {
		a.t.Fatal(err)
	}
	return id
}

// TestHostsTLS: an authority of one's own, a certificate of the client, and skip_verify.
func TestHostsTLS(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "hosts/secret:v1", smallImage("tls"))
	ours, theirs := newAuthority(t), newAuthority(t)
	server, client, stranger := ours.issue("server"), ours.issue("client"), theirs.issue("stranger")
	open := newFront(t, n, &tls.Config{Certificates: []tls.Certificate{server.pair}})
	mutual := newFront(t, n, &tls.Config{
		Certificates: []tls.Certificate{server.pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool,
	})
	for name, tc := range map[string]struct {
		front *front
		lines string
		says  string
	}{
		"authority":                    {open, fmt.Sprintf("ca = %q", ours.file), ""},
		"two authorities":              {open, fmt.Sprintf("ca = [%q, %q]", theirs.file, ours.file), ""},
		"unverified":                   {open, "skip_verify = true", ""},
		"unknown authority":            {open, "", "certificate signed by unknown authority"},
		"another authority":            {open, fmt.Sprintf("ca = %q", theirs.file), "certificate signed by unknown authority"},
		"client in two files":          {mutual, fmt.Sprintf("ca = %q\nclient = [[%q, %q]]", ours.file, client.cert, client.key), ""},
		"no certificate of the client": {mutual, fmt.Sprintf("ca = %q", ours.file), "tls"},
		"a stranger's":                 {mutual, fmt.Sprintf("ca = %q\nclient = [[%q, %q]]", ours.file, stranger.cert, stranger.key), "tls"},
		"a file that is missing":       {open, "ca = \"/no/such/ca.pem\"", "/no/such/ca.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			const ref = "secure.example/hosts/secret:v1"
			writeHosts(t, n, "secure.example", fmt.Sprintf("server = \"https://%s\"\n%s\n[host.\"https://%s\"]\n%s\n", tc.front.Host, tc.lines, tc.front.Host, tc.lines))
			if tc.says == "" {
				pulled(t, n, ref)
				return
			}
			_, err := tryPull(t.Context(), n, ref, nil)
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), ref) {
				t.Errorf("error is %v, want %q and the reference", err, tc.says)
			}
		})
	}
}

// TestPlainHTTPOnLoopbackNeedsNoHosts: as on containerd, and on loopback alone.
func TestPlainHTTPOnLoopbackNeedsNoHosts(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "hosts/plain:v1", smallImage("plain"))
	pulled(t, n, newFront(t, n, nil).Host+"/hosts/plain:v1")
	_, err := tryPull(t.Context(), n, "10.255.255.1:5000/hosts/plain:v1", nil)
	wantError(t, err, codes.Unavailable, "https://10.255.255.1:5000")
}
