// Command bom tells what Go programs are linked of, from what the linker wrote into them: as a CycloneDX bill of
// materials, or as the texts of the modules' licenses. The same programs give the same bytes.
//
// It does not judge licenses, and knows nothing of what is linked by other compilers: the programs of a release
// have no cgo.
package main

import (
	"bufio"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	licenses := flag.Bool("licenses", false, "print the modules' licenses instead of the bill")
	version := flag.String("version", "", "`version` of the product")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bom [-licenses | -version VERSION] PROGRAM...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*licenses, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bom:", err)
		os.Exit(1)
	}
}

func run(licenses bool, version string, paths []string) error {
	if len(paths) == 0 {
		return errors.New("no program is given")
	}
	var programs []program
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		programs = append(programs, program{name: filepath.Base(path), data: data, info: info})
	}
	out := bufio.NewWriter(os.Stdout)
	if licenses {
		if err := writeLicenses(out, programs); err != nil {
			return err
		}
		return out.Flush()
	}
	date, err := sourceDate()
	if err != nil {
		return err
	}
	if err := writeBill(out, made{version, date}, programs); err != nil {
		return err
	}
	return out.Flush()
}

// sourceDate is the bill's date, so that two runs give the same.
func sourceDate() (time.Time, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH, the bill's date in seconds: %w", err)
	}
	return time.Unix(seconds, 0), nil
}

// program is one program and what it says of itself.
type program struct {
	name string
	data []byte
	info *buildinfo.BuildInfo
}

// modules are those of the program, without its own, sorted by path.
func (p program) modules() []debug.Module {
	var out []debug.Module
	for _, m := range p.info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		out = append(out, *m)
	}
	slices.SortFunc(out, byPath)
	return out
}

func byPath(a, b debug.Module) int { return strings.Compare(a.Path, b.Path) }

// union are the modules of all programs, each once: they are built from one go.mod.
func union(programs []program) []debug.Module {
	var out []debug.Module
	for _, p := range programs {
		out = append(out, p.modules()...)
	}
	slices.SortFunc(out, byPath)
	return slices.CompactFunc(out, func(a, b debug.Module) bool { return a.Path == b.Path && a.Version == b.Version })
}
