package e2epackage

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/internal/testkit"
)

// TestRelease makes a release for both architectures. The script itself builds everything twice and compares, and
// fails where a build depends on its directory, umask, time zone or locale.
func TestRelease(t *testing.T) {
	t.Parallel()
	nfpm := testkit.RequireBin(t, "nfpm")
	dir := filepath.Join(t.TempDir(), "release")
	run(t, "env", "CACHE=warm", "VERSION="+older.program, "NFPM="+nfpm, "../../hack/release.sh", dir)

	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() != "SHA256SUMS" && !strings.Contains(string(sums), sum(data)+"  "+e.Name()+"\n") {
			t.Errorf("SHA256SUMS does not have %s: %s", e.Name(), sums)
		}
	}
	if len(entries) != 4*len(rpmArch)+1 {
		t.Errorf("the release is %v, want sums and, for each architecture, .deb, .rpm, tarball and SBOM", entries)
	}
	for arch := range rpmArch {
		t.Run(arch, func(t *testing.T) { checkBill(t, dir, arch) })
	}
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// checkBill compares the SBOM with the programs in the tarball.
func checkBill(t *testing.T, dir, arch string) {
	t.Helper()
	name := filepath.Join(dir, "userns-shim-"+older.packages+"-linux-"+arch)
	packed, err := os.Open(name + ".tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, r, 1)
	data, err := os.ReadFile(name + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BOMFormat string
		Metadata  struct {
			Timestamp time.Time
			Component struct{ Name, Version string }
		}
		Components []struct {
			Type, Name, Version, PURL string
			Hashes                    []struct{ Alg, Content string }
		}
	}
	if err := json.Unmarshal(data, &bill); err != nil || bill.BOMFormat != "CycloneDX" || bill.Metadata.Component.Version != older.packages {
		t.Fatalf("the SBOM has the format %q, of version %q, %v", bill.BOMFormat, bill.Metadata.Component.Version, err)
	}
	if bill.Metadata.Timestamp.Year() < 2020 {
		t.Errorf("the SBOM's time is %v", bill.Metadata.Timestamp)
	}
	var programs, modules, want []string
	for _, c := range bill.Components {
		if c.Type == "application" {
			programs = append(programs, c.Name)
			if len(c.Hashes) != 1 || c.Hashes[0].Content != sum(files["/bin/"+c.Name].data) {
				t.Errorf("the SBOM's hashes of %s are %v, which is not the program in the tarball", c.Name, c.Hashes)
			}
			continue
		}
		modules = append(modules, c.PURL)
	}
	if !slices.Equal(programs, []string{"userns-shim", "userns-shim-init"}) {
		t.Errorf("the SBOM has the programs %v", programs)
	}
	// The linker's own list.
	info, err := buildinfo.Read(bytes.NewReader(files["/bin/userns-shim"].data))
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		want = append(want, "pkg:golang/"+m.Path+"@"+strings.ReplaceAll(m.Version, "+", "%2B"))
	}
	slices.Sort(want)
	slices.Sort(modules)
	if !slices.Equal(modules, want) {
		t.Errorf("the SBOM has\n%q, and the program is linked of\n%q", modules, want)
	}
}
