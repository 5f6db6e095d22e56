package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// home is where the project lives.
const home = "github.com/userns-shim/userns-shim"

// made says of what the bill is, and when it was made.
type made struct {
	version string
	date    time.Time
}

// writeBill writes a bill without a serial number, which would differ between two runs.
func writeBill(w io.Writer, of made, programs []program) error {
	bill := cdx.NewBOM()
	version := of.version
	authors := &cdx.OrganizationalEntity{Name: "userns-shim authors", URL: &[]string{"https://" + home}}
	product := cdx.Component{
		BOMRef: "userns-shim", Type: cdx.ComponentTypeApplication, Name: "userns-shim", Version: version,
		Supplier: authors,
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}
	bill.Metadata = &cdx.Metadata{Timestamp: of.date.UTC().Format(time.RFC3339), Supplier: authors, Component: &product}
	var components []cdx.Component
	dependencies := []cdx.Dependency{{Ref: product.BOMRef, Dependencies: &[]string{}}}
	for _, p := range programs {
		components = append(components, p.component(version))
		*dependencies[0].Dependencies = append(*dependencies[0].Dependencies, p.ref())
		refs := []string{toolchainRef(p)}
		for _, m := range p.modules() {
			refs = append(refs, moduleRef(m))
		}
		dependencies = append(dependencies, cdx.Dependency{Ref: p.ref(), Dependencies: &refs})
	}
	components = append(components, toolchain(programs[0]))
	for _, m := range union(programs) {
		components = append(components, module(m))
	}
	bill.Components, bill.Dependencies = &components, &dependencies
	if err := cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bill, cdx.SpecVersion1_6); err != nil {
		return fmt.Errorf("encode the bill of materials: %w", err)
	}
	return nil
}

func (p program) ref() string { return "program:" + p.name }

func (p program) component(version string) cdx.Component {
	sum := sha256.Sum256(p.data)
	var settings []cdx.Property
	for _, s := range p.info.Settings {
		settings = append(settings, cdx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	return cdx.Component{
		BOMRef: p.ref(), Type: cdx.ComponentTypeApplication, Name: p.name, Version: version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &settings,
	}
}

// goVersion is Go's version as its vulnerability database writes it.
func goVersion(p program) string {
	version, _, _ := strings.Cut(strings.TrimPrefix(p.info.GoVersion, "go"), " ")
	return version
}

func toolchainRef(p program) string { return "pkg:golang/stdlib@" + goVersion(p) }

// toolchain is Go's standard library, under the name that Go's vulnerability database has for it.
func toolchain(p program) cdx.Component {
	return cdx.Component{
		BOMRef: toolchainRef(p), Type: cdx.ComponentTypeLibrary, Name: "stdlib", Version: goVersion(p),
		PackageURL: toolchainRef(p),
	}
}

// moduleRef is the package URL of a module, in which a + of its version has to be written out.
func moduleRef(m debug.Module) string {
	return "pkg:golang/" + m.Path + "@" + url.QueryEscape(m.Version)
}

// module carries go.sum's hash as a property: it is one of a list of the module's files, which no other tool would
// find when it hashes an archive.
func module(m debug.Module) cdx.Component {
	return cdx.Component{
		BOMRef: moduleRef(m), Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
		PackageURL: moduleRef(m),
		Properties: &[]cdx.Property{{Name: "go:sum", Value: m.Sum}},
	}
}
