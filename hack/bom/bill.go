package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"runtime/debug"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeBill writes a bill without a serial number and a time, which would differ between two runs.
func writeBill(w io.Writer, version string, programs []program) error {
	bill := cdx.NewBOM()
	product := cdx.Component{
		BOMRef: "userns-shim", Type: cdx.ComponentTypeApplication, Name: "userns-shim", Version: version,
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}
	bill.Metadata = &cdx.Metadata{Component: &product}
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

func toolchainRef(p program) string { return "pkg:golang/std@" + p.info.GoVersion }

// toolchain is Go's standard library.
func toolchain(p program) cdx.Component {
	return cdx.Component{
		BOMRef: toolchainRef(p), Type: cdx.ComponentTypeLibrary, Name: "std", Version: p.info.GoVersion,
		PackageURL: toolchainRef(p),
	}
}

func moduleRef(m debug.Module) string { return "pkg:golang/" + m.Path + "@" + m.Version }

// module carries go.sum's hash as a property: it is one of a list of the module's files, which no other tool would
// find when it hashes an archive.
func module(m debug.Module) cdx.Component {
	return cdx.Component{
		BOMRef: moduleRef(m), Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
		PackageURL: moduleRef(m),
		Properties: &[]cdx.Property{{Name: "go:sum", Value: m.Sum}},
	}
}
