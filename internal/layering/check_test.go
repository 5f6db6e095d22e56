package layering

import (
	"fmt"
	"slices"
	"strings"
)

// graph is what the rules judge: every package of the module by its path below the module, and
// the imports of all other packages that it reaches.
type graph struct {
	module   string
	packages []pkg
	// imports has those of every package, also of other modules, tests left
	// out, under whole import paths.
	imports map[string][]string
}

type pkg struct {
	path  string
	files []file
}

type file struct {
	name    string
	imports []string // whole import paths
	doc     string   // text of the package comment
	clause  string   // name in the package clause
}

func (f file) test() bool { return strings.HasSuffix(f.name, "_test.go") }

func (f file) linux() bool {
	return strings.HasSuffix(strings.TrimSuffix(strings.TrimSuffix(f.name, ".go"), "_test"), "_linux")
}

// own returns the path below the module of an import, and whether it has one.
func (g graph) own(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, g.module+"/")
}

// check returns one line for each breach of the rules.
func check(g graph) []string {
	var breaches []string
	for _, p := range g.packages {
		place, ok := placeOf(p.path)
		if !ok {
			breaches = append(breaches, p.path+": has no place in layers; give it one in internal/layering/rules_test.go")
			continue
		}
		breaches = append(breaches, checkDoc(p)...)
		for _, f := range p.files {
			breaches = append(breaches, checkOwnImports(g, p, place, f)...)
			breaches = append(breaches, checkUnixFile(p, f)...)
			if !place.tool {
				breaches = append(breaches, checkRestricted(p, f)...)
			}
		}
		if !place.tool {
			breaches = append(breaches, checkIndirect(g, p)...)
		}
	}
	slices.Sort(breaches)
	return breaches
}

func placeOf(path string) (layer, bool) {
	i := slices.IndexFunc(layers, func(l layer) bool { return match(l.pkg, path) })
	if i < 0 {
		return layer{}, false
	}
	return layers[i], true
}

func checkDoc(p pkg) []string {
	documented := slices.ContainsFunc(p.files, func(f file) bool {
		if f.clause == "main" {
			return f.doc != ""
		}
		return strings.HasPrefix(f.doc, "Package "+strings.TrimSuffix(f.clause, "_test")+" ")
	})
	if documented {
		return nil
	}
	return []string{p.path + ": has no package comment"}
}

func checkOwnImports(g graph, p pkg, place layer, f file) []string {
	var breaches []string
	for _, imp := range f.imports {
		path, ok := g.own(imp)
		if !ok || match(place.pkg, path) || match(p.path+"/...", path) {
			continue
		}
		allowed := matchAny(place.may, path)
		if f.test() {
			allowed = allowed || !matchAny(beyondTests, path)
		}
		if !allowed {
			breaches = append(breaches, fmt.Sprintf("%s/%s: imports %s, against the direction of layers", p.path, f.name, path))
		}
	}
	return breaches
}

func checkUnixFile(p pkg, f file) []string {
	if f.linux() || !slices.Contains(f.imports, unixPackage) {
		return nil
	}
	return []string{fmt.Sprintf("%s/%s: imports %s, and is not named *_linux.go", p.path, f.name, unixPackage)}
}

func checkRestricted(p pkg, f file) []string {
	var breaches []string
	for _, r := range restrictions {
		if matchAny(r.within, p.path) || f.test() && !r.tests {
			continue
		}
		for _, imp := range f.imports {
			if slices.Contains(r.imports, imp) {
				breaches = append(breaches, fmt.Sprintf("%s/%s: imports %s, which only %s may",
					p.path, f.name, imp, strings.Join(r.within, ", ")))
			}
		}
	}
	return breaches
}

// checkIndirect looks for ways to a restricted package through others. A direct
// import is left to checkRestricted.
func checkIndirect(g graph, p pkg) []string {
	var breaches []string
	for _, r := range restrictions {
		if !r.indirect || matchAny(r.within, p.path) {
			continue
		}
		if chain := g.chain(p.path, r); len(chain) > 2 {
			breaches = append(breaches, fmt.Sprintf("%s: reaches what only %s may import: %s",
				p.path, strings.Join(r.within, ", "), strings.Join(chain, " -> ")))
		}
	}
	return breaches
}

// chain returns the shortest chain of imports from a package of the module to one of
// r.imports that passes none of r.within, or nil.
func (g graph) chain(from string, r restriction) []string {
	start := g.module + "/" + from
	cameFrom := map[string]string{start: ""}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if slices.Contains(r.imports, at) {
			var chain []string
			for ; at != ""; at = cameFrom[at] {
				chain = append(chain, at)
			}
			slices.Reverse(chain)
			return chain
		}
		for _, next := range g.imports[at] {
			path, own := g.own(next)
			if _, seen := cameFrom[next]; seen || own && matchAny(r.within, path) {
				continue
			}
			cameFrom[next] = at
			queue = append(queue, next)
		}
	}
	return nil
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return match(pattern, path) })
}

func match(pattern, path string) bool {
	base, tree := strings.CutSuffix(pattern, "/...")
	return path == base || tree && strings.HasPrefix(path, base+"/")
}
