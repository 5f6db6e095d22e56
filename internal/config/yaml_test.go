package config

import (
	"reflect"
	"testing"
)

// FuzzParse holds that a file which is accepted says the same when it is written again, and that its extents are
// ids.
func FuzzParse(f *testing.F) {
	whole, err := Default().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(whole), "", "{}", "null", "[]", "kind: Config\n---\nkind: Config\n", "unknown: 1\n", "root: relative\n", "root: \"/a\\0b\"\n",
		"runtimeHandlers: {crun: {binaryName: crun}}\ndefaultRuntimeHandler: crun\n",
		"runtimeHandlers: {crun: [crun]}\n", "runtimeHandlers: null\n",
		"idPool: {quarantine: 5m, kubeletExtents: auto, extents: [{start: 65536, length: 65536}]}\n",
		"idPool: {kubeletExtents: [{start: 65536, length: 18446744073709486080}]}\n",
		"idPool: {kubeletExtents: [1]}\n", "idPool: {kubeletExtents: {start: 1}}\n", "a: &a [*a]\n", "registry: {pullProgressTimeout: -1s}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse(text)
		if err != nil {
			return
		}
		for _, e := range append(cfg.IDPool.Extents, cfg.IDPool.KubeletExtents.Extents...) {
			if e.Length == 0 || e.Length > 1<<32 || uint64(e.Start)+e.Length > 1<<32 {
				t.Errorf("extent %+v is accepted", e)
			}
		}
		written, err := cfg.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written)
		if err != nil {
			t.Fatalf("what was accepted is not when it is written again: %v\n%s", err, written)
		}
		if !reflect.DeepEqual(normal(cfg), normal(again)) {
			t.Errorf("it was read as %+v and then as %+v", cfg, again)
		}
	})
}

// normal lets an empty list be none.
func normal(c Config) Config {
	if len(c.IDPool.Extents) == 0 {
		c.IDPool.Extents = nil
	}
	if len(c.IDPool.KubeletExtents.Extents) == 0 {
		c.IDPool.KubeletExtents.Extents = nil
	}
	if len(c.CDISpecDirs) == 0 {
		c.CDISpecDirs = nil
	}
	return c
}
