package labimage

import (
	"archive/tar"
	"context"
	"fmt"
	"runtime"
	"sort"
)

// Names of the images that Catalogue describes, as they are pushed.
const (
	Demo       = "demo:latest"       // five layers, users and groups, files of several owners, a whiteout
	Layers40   = "layers:40"         // forty layers
	Empty      = "empty:latest"      // no layer at all
	RootOwner  = "rootowner:latest"  // its root directory belongs to 1000:1000, see rootOwnerLayer
	Owners     = "owners:latest"     // files of ids at and beyond the end of a range
	Setuid     = "setuid:latest"     // programs with setuid and setgid bits
	User       = "user:latest"       // USER nonroot
	UserNumber = "usernumber:latest" // USER 1000:1000
	Volume     = "volume:latest"     // VOLUME /data, with content of several owners
	Entrypoint = "entrypoint:latest" // ENTRYPOINT echo, CMD hello world
)

// MultiArch is the name of the index that Indexes describes.
const MultiArch = "multiarch:latest"

// NonRoot and LastID are users of the demo image's /etc/passwd, with groups of the same names and ids.
const (
	NonRoot = 1000
	LastID  = 65535
)

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
nonroot:x:1000:1000:nonroot:/home/nonroot:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
last:x:65535:65535:last:/:/bin/sh
`

const group = `root:x:0:
daemon:x:1:
extra:x:2000:nonroot
nonroot:x:1000:
nogroup:x:65534:
last:x:65535:
`

// Catalogue describes every single-platform image, by name.
func Catalogue(box Box) map[string]Spec {
	base := baseLayers(box)
	with := func(layers ...Layer) []Layer { return append(base[:len(base):len(base)], layers...) }
	return map[string]Spec{
		Demo:       {Layers: with(dataLayer(), whiteoutLayer()), Cmd: []string{"sleep", "infinity"}},
		Layers40:   {Layers: with(numberedLayers(40 - len(base))...), Cmd: []string{"sleep", "infinity"}},
		Empty:      {Cmd: []string{"/box/sleep", "infinity"}},
		RootOwner:  {Layers: with(rootOwnerLayer()), Cmd: []string{"sleep", "infinity"}},
		Owners:     {Layers: with(ownersLayer()), Cmd: []string{"sleep", "infinity"}},
		Setuid:     {Layers: with(setuidLayer(box)), Cmd: []string{"sleep", "infinity"}},
		User:       {Layers: base, User: "nonroot", WorkingDir: "/home/nonroot", Cmd: []string{"sleep", "infinity"}},
		UserNumber: {Layers: base, User: "1000:1000", Cmd: []string{"sleep", "infinity"}},
		Volume:     {Layers: with(dataLayer()), Volumes: []string{"/data"}, Cmd: []string{"sleep", "infinity"}},
		Entrypoint: {Layers: base, Entrypoint: []string{"echo"}, Cmd: []string{"hello", "world"}},
	}
}

// Indexes describes every multi-platform index, by name. Only the machine's own platform can run;
// the other entries exist to be passed over, and have a file /etc/arch that tells them apart.
func Indexes(box Box) map[string][]Spec {
	specs := []Spec{{
		Layers: append(baseLayers(box), Layer{Text("etc/arch", runtime.GOARCH+"\n")}),
		Cmd:    []string{"sleep", "infinity"},
	}}
	for _, other := range []string{"amd64", "arm64", "s390x"} {
		if other != runtime.GOARCH {
			specs = append([]Spec{{Arch: other, Layers: []Layer{{Dir("etc", 0o755), Text("etc/arch", other+"\n")}}}}, specs...)
		}
	}
	return map[string][]Spec{MultiArch: specs}
}

// PushAll pushes the whole catalogue and returns the digest of each name.
func (r *Registry) PushAll(ctx context.Context, box Box) (map[string]string, error) {
	digests := map[string]string{}
	for name, spec := range Catalogue(box) {
		img, err := Build(spec)
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", name, err)
		}
		if digests[name], err = r.Push(ctx, name, img); err != nil {
			return nil, err
		}
	}
	for name, specs := range Indexes(box) {
		index, err := BuildIndex(specs)
		if err != nil {
			return nil, fmt.Errorf("build index %s: %w", name, err)
		}
		if digests[name], err = r.PushIndex(ctx, name, index); err != nil {
			return nil, err
		}
	}
	return digests, nil
}

// baseLayers are the three layers that most images share: directories and box, applets, accounts.
func baseLayers(box Box) []Layer {
	return []Layer{
		{
			Dir(".", 0o755), Dir("bin", 0o755), Dir("etc", 0o755), Dir("home", 0o755), Dir("root", 0o700),
			Dir("tmp", 0o1777), Dir("usr", 0o755), Dir("var", 0o755), Dir("proc", 0o555), Dir("sys", 0o555), Dir("dev", 0o755),
			Program("bin/box", box.Program),
		},
		appletLayer(box),
		{
			Dir("etc", 0o755), Text("etc/passwd", passwd), Text("etc/group", group),
			Dir("home/nonroot", 0o755).Owned(NonRoot, NonRoot),
			Text("home/nonroot/mine", "nonroot's\n").Owned(NonRoot, NonRoot),
		},
	}
}

func appletLayer(box Box) Layer {
	layer := Layer{Dir("bin", 0o755)}
	names := append([]string(nil), box.Applets...)
	sort.Strings(names)
	for _, name := range names {
		layer = append(layer, Symlink("bin/"+name, "box"))
	}
	return layer
}

func dataLayer() Layer {
	return Layer{
		Dir("data", 0o755),
		Text("data/root", "0\n"),
		Text("data/nonroot", "1000\n").Owned(NonRoot, NonRoot),
		Text("data/removed", "a later layer hides this\n"),
		Dir("data/dir", 0o750).Owned(NonRoot, 2000),
		Text("data/dir/file", "deep\n").Owned(NonRoot, 2000),
		Symlink("data/link", "nonroot").Owned(NonRoot, NonRoot),
	}
}

// whiteoutLayer deletes a file of a lower layer the way OCI layers do.
func whiteoutLayer() Layer {
	return Layer{Text("data/.wh.removed", ""), Text("data/added", "by the last layer\n")}
}

// ownersLayer has owners inside a range of 65,536, at its end, and beyond it.
func ownersLayer() Layer {
	layer := Layer{Dir("owners", 0o755)}
	for _, id := range []int{0, NonRoot, 65534, LastID, 65536, 100000, 2000000000} {
		layer = append(layer, Text(fmt.Sprintf("owners/%d", id), fmt.Sprintf("%d\n", id)).Owned(id, id))
	}
	return layer
}

// rootOwnerLayer says that the image's root directory is 1000:1000's. containerd's own unpacking passes over
// that entry; the file tells the layer's directory apart, for a test that sets the owner itself.
func rootOwnerLayer() Layer {
	return Layer{Dir(".", 0o755).Owned(NonRoot, NonRoot), Text("rootowner", "")}
}

func setuidLayer(box Box) Layer {
	return Layer{
		Dir("suid", 0o755),
		File{Path: "suid/root", Mode: 0o4755, Data: box.Program},
		File{Path: "suid/nonroot", Mode: 0o6755, UID: NonRoot, GID: NonRoot, Data: box.Program},
		File{Path: "suid/hardlink", Type: tar.TypeLink, Mode: 0o4755, Link: "suid/root"},
	}
}

func numberedLayers(count int) []Layer {
	layers := make([]Layer, 0, count)
	for i := range count {
		layers = append(layers, Layer{Dir("layers", 0o755), Text(fmt.Sprintf("layers/%02d", i), fmt.Sprintf("layer %d\n", i))})
	}
	return layers
}
