package selftest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

var sample = Report{
	Endpoint: "unix:///run/x.sock",
	Runtime:  "fake",
	Version:  "v1",
	Checks: []Check{
		{Name: "version", OK: true, Got: "fake v1", Want: "an answer"},
		{
			Name: "pod1-uid-map", Got: "0 0 4294967295", Want: "0 R 65536",
			Detail: "The pod has not the ids that it should have. In the host's user namespace its root is the node's root.",
		},
		{Name: "pod1-network", Skipped: true, Want: "an address", Detail: "no network"},
		{Name: "layer-on-disk", Skipped: true, Want: "0:0", Detail: "not seen from here"},
		{Name: "cleanup", Skipped: true, Want: "nothing left", Detail: "not seen from here"},
	},
}

func TestWriteText(t *testing.T) {
	const want = `unix:///run/x.sock  fake v1

ok    version             fake v1
FAIL  pod1-uid-map        got:  0 0 4294967295
                          want: 0 R 65536
                          The pod has not the ids that it should have. In the host's user
                          namespace its root is the node's root.
skip  pod1-network        no network
skip  2 checks            not seen from here

1 passed, 3 skipped, 1 failed
`
	var text strings.Builder
	if err := sample.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if text.String() != want {
		t.Errorf("the text is\n%s\nwant\n%s", text.String(), want)
	}
}

func TestTextFitsItsColumns(t *testing.T) {
	for _, name := range Names() {
		if len(name) > nameWidth {
			t.Errorf("%s is longer than %d", name, nameWidth)
		}
	}
}

// TestJSONSchema holds the fields that scripts read.
func TestJSONSchema(t *testing.T) {
	var text strings.Builder
	if err := sample.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal([]byte(text.String()), &top); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, top, "endpoint", "runtime", "version", "checks", "ok")
	for _, c := range top["checks"].([]any) {
		wantKeys(t, c.(map[string]any), "name", "ok", "skipped", "got", "want", "detail")
	}
}

func wantKeys(t *testing.T, object map[string]any, want ...string) {
	t.Helper()
	if len(object) != len(want) {
		t.Errorf("the object %v has %d fields, want %v", object, len(object), want)
	}
	for _, key := range want {
		if _, ok := object[key]; !ok {
			t.Errorf("the object %v has no %s", object, key)
		}
	}
}

// TestNamesAreStable: scripts and dashboards go by them. A new one may be added.
func TestNamesAreStable(t *testing.T) {
	want := []string{
		"version", "runtime-ready", "network-ready", "handler-userns", "image",
		"pod1-runs", "pod1-reported", "pod1-uid-map", "pod1-gid-map", "pod1-setgroups", "pod1-id", "pod1-root-owner",
		"pod1-image-owner", "pod1-file-inside", "pod1-file-on-host", "pod1-hostname", "pod1-tmpfs", "pod1-network",
		"pod2-runs", "pod2-reported", "pod2-uid-map", "pod2-gid-map", "pod2-setgroups", "pod2-id", "pod2-root-owner",
		"pod2-image-owner", "pod2-file-inside", "pod2-file-on-host", "pod2-hostname", "pod2-tmpfs", "pod2-network",
		"ranges-disjoint", "processes-hidden", "signal-refused", "layer-on-disk", "cleanup",
	}
	if got := Names(); !slices.Equal(got, want) {
		t.Errorf("names are\n%v\nwant\n%v", got, want)
	}
}
