package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// command runs userns-shim inside of this process and gives both outputs and the exit code.
func command(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		code = exitCode(err)
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), code
}

func TestConfigDefaultIsValid(t *testing.T) {
	text, _, code := command(t, "", "config", "default")
	if code != 0 || !strings.Contains(text, "blockIOConfigFile:") || !strings.Contains(text, "pinnedImages:") {
		t.Errorf("exit code %d, %s", code, text)
	}
	if out, errs, code := command(t, text, "config", "validate", "--strict"); code != 0 || out != "-: valid\n" {
		t.Errorf("validate: exit code %d, %s%s", code, out, errs)
	}
}

func TestConfigValidate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	for name, tc := range map[string]struct {
		text, says string
		args       []string
		code       int
	}{
		"valid":                {"apiVersion: " + config.APIVersion + "\n", "config.yaml: valid", nil, 0},
		"a warning":            {"root: /x\n", "warning: apiVersion is missing", nil, 0},
		"a warning, strictly":  {"root: /x\n", "warning: apiVersion is missing", []string{"--strict"}, 1},
		"two errors":           {"rooot: /x\nstate: x\n", "config.yaml: error: line 1: rooot is unknown: do you mean root?\n", nil, 1},
		"another output":       {"", "", []string{"-o", "xml"}, 2},
		"more than one file":   {"", "", []string{"another"}, 2},
		"JSON of what is fine": {"apiVersion: " + config.APIVersion + "\n", `"problems": []`, []string{"-o", "json"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, errs, code := command(t, "", append([]string{"config", "validate", file}, tc.args...)...)
			if code != tc.code || !strings.Contains(out, tc.says) {
				t.Errorf("exit code %d, %s%s; want %d, %s", code, out, errs, tc.code, tc.says)
			}
		})
	}
	if _, _, code := command(t, "", "config", "validate", filepath.Join(t.TempDir(), "missing")); code != exitUsage {
		t.Errorf("a missing file: exit code %d", code)
	}
}

// TestConfigValidateKnowsTheOwnExtent that userns-shim takes where the file names none.
func TestConfigValidateKnowsTheOwnExtent(t *testing.T) {
	own, theirs := idpool.DefaultExtents()[0], idpool.DefaultKubeletExtents()[0]
	for length, warned := range map[uint64]bool{
		uint64(own.Start - theirs.Start): false, uint64(own.Start-theirs.Start) + 65536: true, own.End() - uint64(theirs.Start): true,
	} {
		text := fmt.Sprintf("apiVersion: %s\nidPool: {kubeletExtents: [{start: %d, length: %d}]}\n", config.APIVersion, theirs.Start, length)
		if out, _, code := command(t, text, "config", "validate"); code != 0 || strings.Contains(out, "own extent "+own.String()) != warned {
			t.Errorf("%s: exit code %d, %swant a warning: %t", text, code, out, warned)
		}
	}
}

// TestConfigValidateRefusesExtentsThatThePoolDoes: the scripts of the packages start the daemon with a file that is valid.
func TestConfigValidateRefusesExtentsThatThePoolDoes(t *testing.T) {
	last, foreign := uint32(idpool.Invalid-idpool.Unit+1), idpool.ForeignRange().Start
	db, err := state.Open(state.Options{Path: databasePath(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, tc := range []struct {
		usable  bool
		extents []config.Extent
	}{
		{false, []config.Extent{{Start: last, Length: idpool.Unit}}},
		{false, []config.Extent{{Start: foreign, Length: idpool.Unit}}},
		{false, []config.Extent{{Start: last, Length: idpool.Unit}, {Start: foreign, Length: idpool.Unit}}},
		{true, []config.Extent{{Start: last - idpool.Unit, Length: 2 * idpool.Unit}}},
		{true, []config.Extent{{Start: foreign - idpool.Unit, Length: 2 * idpool.Unit}}},
		{true, []config.Extent{{Start: foreign, Length: 2 * idpool.Unit}}},
		{true, []config.Extent{{Start: last, Length: idpool.Unit}, {Start: idpool.Unit, Length: idpool.Unit}}},
	} {
		cfg := config.Default()
		cfg.IDPool.Extents = tc.extents
		err := db.View(func(tx *state.Tx) error {
			_, err := idpool.Load(tx.Raw(sandbox.PoolBucket), poolOptions(cfg.IDPool))
			return err
		})
		var flow []string
		for _, e := range tc.extents {
			flow = append(flow, fmt.Sprintf("{start: %d, length: %d}", e.Start, e.Length))
		}
		text := fmt.Sprintf("apiVersion: %s\nidPool: {extents: [%s]}\n", config.APIVersion, strings.Join(flow, ", "))
		out, _, code := command(t, text, "config", "validate")
		if tc.usable != (err == nil) || tc.usable != (code == 0) || !tc.usable && !strings.Contains(out, "error: line 2: idPool.extents") {
			t.Errorf("%s: the pool says %v; validated with exit code %d: %s", text, err, code, out)
		}
	}
}

func TestConfigValidateAsJSON(t *testing.T) {
	out, _, code := command(t, "apiVersion: "+config.APIVersion+"\nidPool:\n  quarantine: -1s\nrestoreCheckpointImages: true\n", "config", "validate", "-o", "json", "-")
	var got verdict
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if code != exitFailure || got.Valid || got.Errors != 1 || got.Warnings != 1 || len(got.Problems) != 2 ||
		got.Problems[0] != (config.Problem{Line: 3, Column: 3, Field: "idPool.quarantine", Message: "is negative"}) ||
		got.Problems[1].Field != "restoreCheckpointImages" || !got.Problems[1].Warning {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestConfigMigrate(t *testing.T) {
	const plugin = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"\nenable_unprivileged_ports = true\nenable_unprivileged_icmp = true\n" +
		"[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/cni\"\n"
	const head = "apiVersion: userns-shim.io/v1alpha1\nkind: Config\n"
	for name, tc := range map[string]struct {
		text, out, errs string
		args            []string
		code            int
	}{
		"of containerd":   {plugin, head + "cni:\n  # io.containerd.grpc.v1.cri.cni.conf_dir\n  confDir: /cni\ncgroupDriver: cgroupfs\n", "sandbox_image = pause", nil, 0},
		"of our own":      {"root: /x\nmetricsListen: 127.0.0.1:9464\n", head + "root: /x\n", "", nil, 0},
		"of nothing":      {"", head, "", nil, 0},
		"an unknown key":  {"rooot: /x\n", "", "do you mean root?", nil, 1},
		"of another kind": {"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n", "", "apiVersion is", nil, 1},
		"wrong format":    {plugin, "", "line 1", []string{"--from", "userns-shim"}, 1},
		"no such format":  {plugin, "", "want auto", []string{"--from", "crio"}, 2},
		"version 1":       {"[plugins.cri]\n", "", "containerd config migrate", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := command(t, tc.text, append([]string{"config", "migrate", "-"}, tc.args...)...)
			if out != tc.out || !strings.Contains(errs, tc.errs) || code != tc.code {
				t.Errorf("exit code %d\n%s\n%s\nwant %d\n%s\n%s", code, out, errs, tc.code, tc.out, tc.errs)
			}
		})
	}
	out, errs, code := command(t, plugin, "config", "migrate", "-o", "json", "-")
	var got struct {
		Config         string
		Carried, Notes []map[string]string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" || len(got.Notes) != 1 || !strings.Contains(got.Config, "confDir: /cni") {
		t.Errorf("JSON: %d, %v, %s%s", code, err, out, errs)
	}
}
