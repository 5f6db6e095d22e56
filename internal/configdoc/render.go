package configdoc

import (
	"fmt"
	"strings"
)

const head = `# Configuration

<!-- Written by hack/configdoc from the types in internal/config. Change their comments and run make generate. -->

userns-shim reads one YAML file, ` + "`userns-shim serve --config FILE`" + `. Every key has a default, so an empty file works on an
ordinary node, and a file need only have what differs. Unknown and repeated keys are errors. A change takes effect
at the next start; pods run on meanwhile.

` + "```sh" + `
userns-shim config default                              # the whole file with all defaults, commented
userns-shim config validate /etc/userns-shim/config.yaml # all that is wrong with a file, with lines; also -o json
userns-shim config migrate /etc/containerd/config.toml  # the file that says the same as containerd's CRI plugin
` + "```" + `

Flags of ` + "`serve`" + ` win over the file. Durations are Go's: ` + "`90s`, `5m`, `1h30m`" + `. Patterns of names have ` + "`*`" + ` for any characters.
`

// Markdown is docs/configuration.md.
func (r *Reference) Markdown() []byte {
	var out strings.Builder
	out.WriteString(head)
	out.WriteString("\n## Top level\n")
	for _, f := range r.Fields {
		if f.Type != "" {
			section(&out, f)
		}
	}
	for _, f := range r.Fields {
		if f.Fields == nil {
			continue
		}
		fmt.Fprintf(&out, "\n## %s\n", f.Key)
		if f.Type == "" {
			fmt.Fprintf(&out, "\n%s\n", prose(f.Doc))
		}
		for _, below := range f.Fields {
			section(&out, below)
		}
	}
	out.WriteString("\n## Extents\n\nAn extent is a run of host ids, `{start: 2113798144, length: 33554432}`.\n")
	for _, f := range r.Extent {
		section(&out, f)
	}
	return []byte(out.String())
}

func section(out *strings.Builder, f Field) {
	fmt.Fprintf(out, "\n### `%s`\n\n%s", strings.TrimPrefix(f.Path, "[]."), f.Type)
	if f.Unit != "" {
		fmt.Fprintf(out, " (%s)", f.Unit)
	}
	if len(f.Values) > 0 {
		fmt.Fprintf(out, ": `%s`", strings.Join(f.Values, "`, `"))
	}
	if !strings.HasPrefix(f.Path, "[]") && f.Type != "mapping of names to runtime handlers" {
		fmt.Fprintf(out, " · default `%s`", f.Default)
	}
	fmt.Fprintf(out, " · for example `%s`\n\n%s\n", f.Example, prose(f.Doc))
}

// prose keeps a * of a comment from starting emphasis, and a <name> from being a tag.
func prose(doc string) string {
	return strings.NewReplacer("*", `\*`, "<", "&lt;", "_", `\_`).Replace(doc)
}

const yamlHead = `# The configuration of userns-shim with all its defaults. A key that is left out has its default, so an
# empty file is the same. docs/configuration.md has an example of each key.

`

// YAML is the file with all defaults, each key with its comment.
func (r *Reference) YAML() []byte {
	var out strings.Builder
	out.WriteString(yamlHead)
	writeKeys(&out, r.Fields, "")
	return []byte(out.String())
}

func writeKeys(out *strings.Builder, fields []Field, indent string) {
	for i, f := range fields {
		if i > 0 && (indent == "" || len(fields[i-1].Doc) > 0) && f.Key != "kind" {
			out.WriteString("\n")
		}
		for line := range strings.Lines(f.Doc + facts(f)) {
			fmt.Fprintf(out, "%s# %s\n", indent, strings.TrimRight(line, "\n"))
		}
		switch {
		case f.Fields == nil:
			fmt.Fprintf(out, "%s%s: %s\n", indent, f.Key, f.Default)
		case f.Type != "":
			fmt.Fprintf(out, "%s%s:\n%s  runc:\n", indent, f.Key, indent)
			writeKeys(out, f.Fields, indent+"    ")
		default:
			fmt.Fprintf(out, "%s%s:\n", indent, f.Key)
			writeKeys(out, f.Fields, indent+"  ")
		}
	}
}

// facts are the unit and the values of a key, as a further line of its comment.
func facts(f Field) string {
	switch {
	case len(f.Values) > 0:
		return "\nOne of: " + strings.Join(f.Values, ", ") + "."
	case f.Unit != "":
		return "\nUnit: " + f.Unit + "."
	}
	return ""
}
