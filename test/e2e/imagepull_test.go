package e2e

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
	"github.com/userns-shim/userns-shim/internal/testkit/registrytest"
)

// configDigest is the digest of an image's config, which is the image's id.
func configDigest(t *testing.T, spec labimage.Spec) string {
	t.Helper()
	img, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	name, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return name.String()
}

// TestPullByEachFormOfName: short names are Docker Hub's, which hosts.toml leads to the node's registry, and of a tag
// and a digest the digest counts.
func TestPullByEachFormOfName(t *testing.T) {
	n := sharedNode(t)
	writeHosts(t, n, "docker.io", "server = \"http://"+n.Registry.Addr()+"\"\n")
	spec := smallImage("short")
	for _, repoTag := range []string{"library/short:latest", "library/short:v2", "user/short:latest", "deep/er/short:v1"} {
		n.PushImage(t, repoTag, spec)
	}
	digest := n.PushImage(t, "named/short:v1", spec)
	n.PushImage(t, "named/short:moved", smallImage("another"))
	host := n.Registry.Addr()
	for ref, want := range map[string]struct{ tag, byDigest string }{
		"short":                               {"docker.io/library/short:latest", "docker.io/library/short@" + digest},
		"short:v2":                            {"docker.io/library/short:v2", "docker.io/library/short@" + digest},
		"library/short":                       {"docker.io/library/short:latest", "docker.io/library/short@" + digest},
		"user/short":                          {"docker.io/user/short:latest", "docker.io/user/short@" + digest},
		"index.docker.io/short":               {"docker.io/library/short:latest", "docker.io/library/short@" + digest},
		"docker.io/deep/er/short:v1":          {"docker.io/deep/er/short:v1", "docker.io/deep/er/short@" + digest},
		host + "/named/short:v1":              {host + "/named/short:v1", host + "/named/short@" + digest},
		host + "/named/short@" + digest:       {"", host + "/named/short@" + digest},
		host + "/named/short:moved@" + digest: {"", host + "/named/short@" + digest},
		"short@" + digest:                     {"", "docker.io/library/short@" + digest},
	} {
		t.Run(strings.ReplaceAll(ref, "/", "|"), func(t *testing.T) {
			id := pulled(t, n, ref)
			if want := configDigest(t, spec); id != want {
				t.Errorf("the image's id is %s, want the digest of its config %s", id, want)
			}
			img := imageStatus(t, n, ref)
			var tags []string
			if want.tag != "" {
				tags = []string{want.tag}
			}
			if img.GetId() != id || !slices.Equal(img.GetRepoTags(), tags) || !slices.Equal(img.GetRepoDigests(), []string{want.byDigest}) {
				t.Errorf("status is %v, want id %s, tags %v, digest %s", img, id, tags, want.byDigest)
			}
		})
	}
	for _, ref := range []string{"Upper", "a b", "http://registry.example/a", "a@sha256:12", strings.Repeat("a", 300), "../a", "-", "a:b:c", host + "/"} {
		_, err := tryPull(t.Context(), n, ref, nil)
		wantError(t, err, codes.InvalidArgument, "reference")
	}
	_, err := tryPull(t.Context(), n, "", nil)
	wantError(t, err, codes.InvalidArgument, "image is empty")
}

// TestPullAuthenticates: the credentials of a request, in each of their forms, against registries that check them.
func TestPullAuthenticates(t *testing.T) {
	n := sharedNode(t)
	n.PushImage(t, "private/image:v1", smallImage("private"))
	basic := newFront(t, n, nil, registrytest.RequireBasic("me", "secret")).Host
	token := newFront(t, n, nil, registrytest.RequireToken).Host
	const me = "bWU6c2VjcmV0" // me:secret
	type auth = runtimeapi.AuthConfig
	for name, tc := range map[string]struct {
		host string
		auth *auth
		code codes.Code
	}{
		"basic, name and password":          {basic, &auth{Username: "me", Password: "secret"}, codes.OK},
		"basic, base64":                     {basic, &auth{Auth: me}, codes.OK},
		"basic, for this server":            {basic, &auth{Auth: me, ServerAddress: basic}, codes.OK},
		"basic, for this server by URL":     {basic, &auth{Auth: me, ServerAddress: "http://" + basic + "/v2/"}, codes.OK},
		"basic, wrong password":             {basic, &auth{Username: "me", Password: "wrong"}, codes.Unauthenticated},
		"basic, nothing":                    {basic, nil, codes.Unauthenticated},
		"basic, empty":                      {basic, &auth{}, codes.Unauthenticated},
		"basic, for another server":         {basic, &auth{Auth: me, ServerAddress: "registry.example"}, codes.Unauthenticated},
		"basic, no base64":                  {basic, &auth{Auth: "%%%"}, codes.InvalidArgument},
		"basic, base64 of no pair":          {basic, &auth{Auth: "bWU="}, codes.InvalidArgument},
		"token for name and password":       {token, &auth{Username: "me", Password: "secret"}, codes.OK},
		"token for a wrong password":        {token, &auth{Username: "me", Password: "wrong"}, codes.Unauthenticated},
		"identity token":                    {token, &auth{IdentityToken: "identity"}, codes.OK},
		"wrong identity token":              {token, &auth{IdentityToken: "wrong"}, codes.Unauthenticated},
		"registry token":                    {token, &auth{RegistryToken: "granted"}, codes.OK},
		"wrong registry token":              {token, &auth{RegistryToken: "wrong"}, codes.Unauthenticated},
		"registry token for another server": {token, &auth{RegistryToken: "granted", ServerAddress: "registry.example"}, codes.Unauthenticated},
		"token, nothing":                    {token, nil, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			ref := tc.host + "/private/image:v1"
			_, err := tryPull(t.Context(), n, ref, tc.auth)
			if tc.code != codes.OK {
				wantError(t, err, tc.code, ref)
				if img := imageStatus(t, n, ref); img != nil {
					t.Errorf("a refused image is present: %v", img)
				}
				return
			}
			wantError(t, err, codes.OK)
			removeImage(t, n, ref)
		})
	}
	// Credentials are not remembered for whoever comes next.
	if _, err := tryPull(t.Context(), n, basic+"/private/image:v1", &auth{Auth: me}); err != nil {
		t.Fatal(err)
	}
	_, err := tryPull(t.Context(), n, basic+"/private/image:v1", nil)
	wantError(t, err, codes.Unauthenticated)
	removeImage(t, n, basic+"/private/image:v1")
	forbidden := newFront(t, n, nil, registrytest.Fail(http.StatusForbidden))
	_, err = tryPull(t.Context(), n, forbidden.Host+"/private/image:v1", nil)
	wantError(t, err, codes.PermissionDenied, forbidden.Host)
}

// kind is an image of one media type and compression.
type kind struct {
	manifest, layer types.MediaType
	compression     compression.Compression
}

// repack builds the demo image in another kind.
func repack(t *testing.T, n *nodetest.Node, k kind) v1.Image {
	t.Helper()
	spec := labimage.Catalogue(n.Box())[labimage.Demo]
	// Layers that are there already would not be unpacked: the first one makes the others new.
	own := labimage.Layer{labimage.Text("kind", string(k.layer))}
	spec.Layers = append([]labimage.Layer{own}, spec.Layers...)
	plain, err := labimage.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := plain.Layers()
	if err != nil {
		t.Fatal(err)
	}
	config, err := plain.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	img := mutate.MediaType(empty.Image, k.manifest)
	for _, layer := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: pack(t, layer, k), MediaType: k.layer}); err != nil {
			t.Fatal(err)
		}
	}
	config = config.DeepCopy()
	config.History = nil
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// pack returns a layer in another kind.
func pack(t *testing.T, layer v1.Layer, k kind) v1.Layer {
	t.Helper()
	if k.compression != compression.None {
		packed, err := tarball.LayerFromOpener(layer.Uncompressed, tarball.WithCompression(k.compression), tarball.WithMediaType(k.layer))
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	// The library compresses a layer with gzip that asks for no compression.
	plain, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	data, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return static.NewLayer(data, k.layer)
}

// TestPullEachKindOfImage pulls images of each media type and compression, and looks at their files in pods with and
// without a user namespace.
func TestPullEachKindOfImage(t *testing.T) {
	n := sharedNode(t)
	for name, k := range map[string]kind{
		"oci-gzip":    {types.OCIManifestSchema1, types.OCILayer, compression.GZip},
		"oci-zstd":    {types.OCIManifestSchema1, types.OCILayerZStd, compression.ZStd},
		"oci-plain":   {types.OCIManifestSchema1, types.OCIUncompressedLayer, compression.None},
		"docker-gzip": {types.DockerManifestSchema2, types.DockerLayer, compression.GZip},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := n.Registry.Push(t.Context(), "kinds/"+name+":v1", repack(t, n, k)); err != nil {
				t.Fatal(err)
			}
			ref := n.Registry.Ref("kinds/" + name + ":v1")
			pulled(t, n, ref)
			for _, opts := range [][]nodetest.PodOption{nil, {nodetest.HostUsers}} {
				pod := n.RunPod(t, opts...)
				c := pod.Run(t, ref)
				if got := c.Exec(t, "cat", "/data/added"); got != "by the last layer" {
					t.Errorf("/data/added is %q", got)
				}
				if got := c.Exec(t, "stat", "-c", "%u:%g", "/data/nonroot"); got != "1000:1000" {
					t.Errorf("/data/nonroot belongs to %s", got)
				}
				wantFailure(t, c, "cat", "/data/removed") // by a whiteout
				pod.Remove(t)
			}
		})
	}
}

// TestPullOfAnIndex takes the image of this machine out of it, in both forms.
func TestPullOfAnIndex(t *testing.T) {
	n := sharedNode(t)
	for _, media := range []types.MediaType{types.DockerManifestList, types.OCIImageIndex} {
		spec := labimage.Catalogue(n.Box())[labimage.Demo]
		spec.Labels = map[string]string{"list": string(media)}
		img, err := labimage.Build(spec)
		if err != nil {
			t.Fatal(err)
		}
		foreign := smallImage("another machine's")
		foreign.Arch = "s390x"
		other, err := labimage.Build(foreign)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, media),
			mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
			mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: config.Architecture}}})
		digest, err := n.Registry.PushIndex(t.Context(), "kinds/list:v1", index)
		if err != nil {
			t.Fatal(err)
		}
		ref := n.Registry.Ref("kinds/list:v1")
		id := pulled(t, n, ref)
		if name, err := img.ConfigName(); err != nil || id != name.String() {
			t.Errorf("the id is %s, want %s: that of the machine's own image", id, name)
		}
		if got := imageStatus(t, n, ref).GetRepoDigests(); !slices.Contains(got, n.Registry.Addr()+"/kinds/list@"+digest) {
			t.Errorf("repo digests are %v, want that of the index %s", got, digest)
		}
		n.RunPod(t).Run(t, ref).Exec(t, "true")
	}
}

func TestPullOfAnIndexWithoutThisMachine(t *testing.T) {
	n := sharedNode(t)
	foreign := smallImage("for another machine alone")
	foreign.Arch = "s390x"
	index, err := labimage.BuildIndex([]labimage.Spec{foreign})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Registry.PushIndex(t.Context(), "kinds/foreign:v1", index); err != nil {
		t.Fatal(err)
	}
	_, err = tryPull(t.Context(), n, n.Registry.Ref("kinds/foreign:v1"), nil)
	wantError(t, err, codes.NotFound, "kinds/foreign")
}
