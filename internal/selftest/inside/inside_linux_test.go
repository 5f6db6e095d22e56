package inside_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
	"github.com/userns-shim/userns-shim/internal/testkit"
)

// lookEnv makes the test binary be the program of a container.
const lookEnv = "SELFTEST_INSIDE_LOOK"

func TestMain(m *testing.M) {
	if file := os.Getenv(lookEnv); file != "" {
		os.Exit(look(file))
	}
	os.Exit(m.Run())
}

func look(file string) int {
	facts, err := inside.Look(inside.Request{File: file, Witness: "/bin/sh", PID: 1})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(facts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// both returns the command of Look and that of the script, for files of the same directory.
func both(t *testing.T) map[string]*exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	program := exec.Command("/proc/self/exe")
	program.Env = append(os.Environ(), lookEnv+"="+filepath.Join(dir, "by-program"))
	argv := inside.Shell().Look(inside.Request{File: filepath.Join(dir, "by-script"), Witness: "/bin/sh", PID: 1})
	return map[string]*exec.Cmd{"program": program, "script": exec.Command(argv[0], argv[1:]...)}
}

func tell(t *testing.T, cmd *exec.Cmd) inside.Facts {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	facts, err := inside.Parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// TestScriptTellsWhatLookTells compares the two where both can run: here.
func TestScriptTellsWhatLookTells(t *testing.T) {
	facts := map[string]inside.Facts{}
	for name, cmd := range both(t) {
		facts[name] = tell(t, cmd)
	}
	// What differs by nature: the processes, and the wording of errors.
	for name, f := range facts {
		if !slices.ContainsFunc(f.Processes, func(p string) bool { return strings.Contains(p, filepath.Base(os.Args[0])) }) {
			t.Errorf("%s does not see this test among the processes %q", name, f.Processes)
		}
		refused := syscall.Kill(1, 0) != nil
		if (f.Signal.Error != "") != refused {
			t.Errorf("%s: a signal to process 1 gives %q", name, f.Signal.Error)
		}
		if f.Hostname.Error == "" || f.Tmpfs.Error == "" {
			t.Errorf("%s has set the host name or mounted a tmpfs in this user namespace", name)
		}
		f.Processes, f.Signal, f.Hostname, f.Tmpfs = nil, inside.Attempt[struct{}]{}, inside.Attempt[struct{}]{}, inside.Attempt[struct{}]{}
		facts[name] = f
	}
	program, script := encode(t, facts["program"]), encode(t, facts["script"])
	if program != script {
		t.Errorf("the program tells\n%s\nand the script\n%s", program, script)
	}
	if got := facts["program"]; got.UIDMap == "" || got.Witness.Inode == 0 || len(got.Interfaces) == 0 || got.Made.Value.UID != got.ID.UID {
		t.Errorf("facts are missing: %+v", got)
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAttemptsInAUserNamespace succeed in namespaces like a pod's, and fail where only the user
// namespace is the pod's.
func TestAttemptsInAUserNamespace(t *testing.T) {
	testkit.RequireRoot(t)
	own := syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 2147221504, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 2147221504, Size: 65536}},
		Credential:  &syscall.Credential{},

		GidMappingsEnableSetgroups: true,
	}
	poor := own
	poor.Cloneflags = syscall.CLONE_NEWUSER
	for name, tt := range map[string]struct {
		attr syscall.SysProcAttr
		want bool
	}{"own namespaces": {own, true}, "the host's namespaces": {poor, false}} {
		for how, cmd := range both(t) {
			t.Run(name+" by "+how, func(t *testing.T) {
				dir, err := os.MkdirTemp("/tmp", "inside-")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				if err := os.Chmod(dir, 0o777); err != nil {
					t.Fatal(err)
				}
				moveTo(cmd, dir)
				cmd.SysProcAttr = &tt.attr
				facts := tell(t, cmd)
				if facts.UIDMap != "0 2147221504 65536" || facts.SetGroups != "allow" {
					t.Errorf("uid_map is %q, setgroups %q", facts.UIDMap, facts.SetGroups)
				}
				if facts.Root != (inside.Owner{UID: 65534, GID: 65534}) {
					t.Errorf("/ belongs to %s, want nobody", facts.Root)
				}
				if facts.Made.Error != "" || facts.Made.Value != (inside.Owner{}) {
					t.Errorf("the file made is %+v, want one of 0:0", facts.Made)
				}
				if ok := facts.Hostname.Error == ""; ok != tt.want {
					t.Errorf("setting the host name gives %q", facts.Hostname.Error)
				}
				if ok := facts.Tmpfs.Error == ""; ok != tt.want {
					t.Errorf("mounting a tmpfs gives %q", facts.Tmpfs.Error)
				}
			})
		}
	}
}

// moveTo has a command make its file in dir.
func moveTo(cmd *exec.Cmd, dir string) {
	file := filepath.Join(dir, "file")
	for i, v := range cmd.Env {
		if strings.HasPrefix(v, lookEnv+"=") {
			cmd.Env[i] = lookEnv + "=" + file
		}
	}
	for i, v := range cmd.Args {
		if strings.HasSuffix(v, "/by-script") {
			cmd.Args[i] = file
		}
	}
}

func TestParseRefusesOtherOutput(t *testing.T) {
	for _, bad := range []string{"", "sh: stat: not found", "[]", `{"uidMap":1}`, `{"unknown":1}`} {
		if facts, err := inside.Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%q) takes it as %+v", bad, facts)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"uidMap":"0 65536 65536","made":{"value":{"uid":0,"gid":0}}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		// Any output of a container gives facts or an error, and no panic.
		_, _ = inside.Parse(data)
	})
}
