package config

import (
	"strings"
	"testing"
)

// TestCheckSaysAllAtOnce: every error of a file, in the order of its lines, with the field that was meant.
func TestCheckSaysAllAtOnce(t *testing.T) {
	const text = `apiVersion: userns-shim.io/v1alpha1
lissten: unix:///x.sock
max_container_log_line_size: 16384
containerd:
  adress: /run/containerd.sock
  snapshotter: [overlayfs]
quarantine: 1m
root: relative
state: /a
state: /b
runtimeHandlers:
  runc: {userNamespaces: sometimes, podsPerShim: few}
idPool:
  claims: permissive
  quarantine: soon
  extents:
  - {start: 65536, length: 1}
  - {start: -1, length: 65536}
  kubeletExtents: maybe
zzz: 1
enableUnprivilegedPorts: 7
`
	want := []string{
		"line 2: lissten is unknown: do you mean listen?",
		"line 3: max_container_log_line_size is unknown: do you mean maxContainerLogLineSize?",
		"line 5: containerd.adress is unknown: do you mean containerd.address?",
		"line 6: containerd.snapshotter is a list: want a string",
		"line 7: quarantine is unknown: do you mean idPool.quarantine?",
		`line 8: root is "relative": want an absolute path`,
		"line 10: state is set in line 9 already",
		`line 12: runtimeHandlers.runc.userNamespaces is "sometimes": want one of ["optIn" "always" "never"]`,
		`line 12: runtimeHandlers.runc.podsPerShim is "few": want a whole number`,
		"line 14: warning: idPool.claims is permissive: pods can get host ids that others have, those of the host included; it is for conformance suites",
		`line 15: idPool.quarantine is "soon": want a duration such as 1h30m or 10s`,
		"line 17: idPool.extents[0].length is 1: want a multiple of 65536",
		`line 18: idPool.extents[1].start is "-1": want a whole number from 0 to 4294967295`,
		`line 19: idPool.kubeletExtents is "maybe": want auto or a list of {start, length}`,
		"line 20: zzz is unknown",
		`line 21: enableUnprivilegedPorts is "7": want true or false`,
	}
	var got []string
	_, problems := Check([]byte(text))
	for _, p := range problems {
		said := p.Error()
		if p.Warning {
			said = strings.Replace(said, ": ", ": warning: ", 1)
		}
		got = append(got, said)
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	_, err := Parse([]byte(text))
	if err == nil || strings.Count(err.Error(), "\n") != len(want)-2 {
		t.Errorf("Parse says %v: want all of it but the warning", err)
	}
}

// TestCheckFindsTheLineOfAValue where the value has the right type and is wrong all the same, and of broken YAML.
func TestCheckFindsTheLineOfAValue(t *testing.T) {
	for name, tc := range map[string]struct{ text, says string }{
		"item":           {"idPool:\n  extents:\n  - {start: 65536, length: 65536}\n  - {start: 65536,\n     length: 7}\n", "line 5: idPool.extents[1].length is 7: want a multiple of 65536"},
		"handler":        {"\nruntimeHandlers:\n  runc:\n    podsPerShim: 0\n", "line 4: runtimeHandlers.runc.podsPerShim is 0"},
		"what it is in":  {"defaultRuntimeHandler: crun\nruntimeHandlers:\n  crun:\n    binaryName: runc\n    runtime: x\n", "line 5: runtimeHandlers.crun.runtime is"},
		"another's name": {"kind: Kubelet\n", `line 1: kind is "Kubelet"`},
		"other version":  {"apiVersion: userns-shim.io/v2\n", `line 1: apiVersion is "userns-shim.io/v2"`},
		"syntax":         {"root: /a\n  state: /b\n", "line 2: mapping values are not allowed"},
		"not a mapping":  {"- root\n", "line 1: is a list: want a mapping"},
		"two documents":  {"root: /a\n---\nroot: /b\n", "more than one YAML document"},
		"merged":         {"cni: &a\n  confDir: /x\nregistry:\n  <<: *a\n", "line 4: registry merges another mapping"},
		"host":           {"metricsListen: nowhere\n", "line 1: metricsListen is no host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(tc.text)); err == nil || !strings.HasPrefix(err.Error(), tc.says) {
				t.Errorf("got %v, want %s", err, tc.says)
			}
		})
	}
}

// TestCheckWarns of what is allowed and rarely meant; the defaults, and what is usual, have no warnings.
func TestCheckWarns(t *testing.T) {
	const version = "apiVersion: " + APIVersion + "\n"
	for text, field := range map[string]string{
		"root: /x\n":                                                                     "apiVersion",
		version + "idPool: {quarantine: 0s}\n":                                           "idPool.quarantine",
		version + "restoreCheckpointImages: true\n":                                      "restoreCheckpointImages",
		version + "metricsListen: 0.0.0.0:9464\n":                                        "metricsListen",
		version + "metricsListen: :9464\n":                                               "metricsListen",
		version + "metricsListen: \"\"\n":                                                "",
		version + "metricsListen: \"[::1]:9464\"\n":                                      "",
		version + "streaming: {listen: 10.0.0.1:0}\n":                                    "streaming.listen",
		version + "streaming: {listen: localhost:0}\n":                                   "",
		version + "runtimeHandlers: {runc: {podsPerShim: 100}}\n":                        "runtimeHandlers.runc.podsPerShim",
		version + "idPool: {extents: [{start: 65536, length: 65536}]}\n":                 "idPool.extents[0]",
		version + "idPool: {kubeletExtents: [{start: 2147352576, length: 65536}]}\n":     "idPool.kubeletExtents[0]",
		version + "idPool: {kubeletExtents: [{start: 2013265920, length: 100532224}]}\n": "",
		version + "idPool: {kubeletExtents: [{start: 2013265920, length: 100597760}]}\n": "idPool.kubeletExtents[0]",
		version + "idPool: {extents: [{start: 2013265920, length: 65536}], kubeletExtents: [{start: 2013331456, length: 65536}]}\n":  "",
		version + "idPool: {extents: [{start: 2013265920, length: 131072}], kubeletExtents: [{start: 2013331456, length: 65536}]}\n": "idPool.kubeletExtents[0]",
		version + "idPool: {extents: [{start: 2147287040, length: 65536}], onConflict: reject}":                                      "",
		version: "",
	} {
		_, problems := Check([]byte(text))
		switch {
		case field == "" && len(problems) > 0:
			t.Errorf("%q: %v", text, problems)
		case field != "" && (len(problems) != 1 || problems[0].Field != field || !problems[0].Warning):
			t.Errorf("%q: %v, want one warning of %s", text, problems, field)
		}
	}
}
