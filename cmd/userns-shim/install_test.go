package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/installer"
)

// TestInstallTakesTheNodesConfiguration: a node that has one keeps it, with its endpoint; another gets what its containerd
// has, or what it is given.
func TestInstallTakesTheNodesConfiguration(t *testing.T) {
	const other = "apiVersion: userns-shim.io/v1alpha1\nlisten: unix:///run/other.sock\n"
	given := filepath.Join(t.TempDir(), "given.yaml")
	if err := os.WriteFile(given, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		files             map[string]string
		config            string
		endpoint, has, no string
	}{
		"nothing": {nil, "", config.Default().Listen, "socketPath: /var/run/nri", ""},
		"containerd": {
			map[string]string{"/etc/containerd/config.toml": "version = 3\n[grpc]\naddress = '/run/k3s.sock'\n"},
			"",
			config.Default().Listen, "address: /run/k3s.sock", "",
		},
		"its own":  {map[string]string{installer.ConfigPath: other}, "", "unix:///run/other.sock", "", ""},
		"given":    {nil, given, "unix:///run/other.sock", "other.sock", ""},
		"broken":   {map[string]string{installer.ConfigPath: "lissten: x\n"}, "", "", "", "do you mean listen?"},
		"too old":  {map[string]string{"/etc/containerd/config.toml": "[plugins.cri]\n"}, "", "", "", "version 0 of containerd's configuration"},
		"no file":  {nil, "/nowhere.yaml", "", "", "/nowhere.yaml"},
		"imported": {map[string]string{"/etc/containerd/config.toml": "version = 3\nimports = ['/etc/containerd/x.toml']\n", "/etc/containerd/x.toml": "[grpc]\naddress = '/run/x.sock'\n"}, "", config.Default().Listen, "address: /run/x.sock", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := installFlags{config: tc.config, opts: installer.Options{Root: t.TempDir()}}
			for file, text := range tc.files {
				file = filepath.Join(f.opts.Root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := f.complete()
			if tc.no != "" {
				if err == nil || !strings.Contains(err.Error(), tc.no) {
					t.Errorf("the error is %v, want %s", err, tc.no)
				}
				return
			}
			if err != nil || f.opts.Endpoint != tc.endpoint || !strings.Contains(string(f.opts.Config), tc.has) {
				t.Errorf("%v, endpoint %s, configuration\n%s", err, f.opts.Endpoint, f.opts.Config)
			}
			if !strings.Contains(string(f.opts.ServiceFile), "ExecStart="+f.opts.BinDir+"/userns-shim serve") {
				t.Errorf("the unit is\n%s", f.opts.ServiceFile)
			}
		})
	}
}
