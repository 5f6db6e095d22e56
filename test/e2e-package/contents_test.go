package e2epackage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// file is one file of a package.
type file struct {
	mode  fs.FileMode
	owner string // uid:gid
	data  []byte
}

// untar reads the regular files of an archive, by their absolute paths, without the first strip elements.
func untar(t *testing.T, r io.Reader, strip int) map[string]file {
	t.Helper()
	out := map[string]file{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Split(strings.TrimPrefix(header.Name, "./"), "/")[strip:]
		out["/"+strings.Join(name, "/")] = file{header.FileInfo().Mode(), fmt.Sprintf("%d:%d", header.Uid, header.Gid), data}
	}
}

// wantFiles are what every package has below its prefix, with their modes.
func wantFiles(prefix string) map[string]fs.FileMode {
	return map[string]fs.FileMode{
		prefix + "/bin/userns-shim":                                  0o755,
		prefix + "/bin/userns-shim-init":                             0o755,
		prefix + "/libexec/userns-shim/kubelet-ids":                  0o755,
		prefix + "/lib/systemd/system/userns-shim.service":           0o644,
		prefix + "/share/man/man8/userns-shim.8.gz":                  0o644,
		prefix + "/share/man/man8/userns-shim-serve.8.gz":            0o644,
		prefix + "/share/man/man8/userns-shim-pool-status.8.gz":      0o644,
		prefix + "/share/bash-completion/completions/userns-shim":    0o644,
		prefix + "/share/fish/vendor_completions.d/userns-shim.fish": 0o644,
		prefix + "/share/doc/userns-shim/README.md":                  0o644,
		prefix + "/share/doc/userns-shim/third-party.gz":             0o644,
	}
}

func checkFiles(t *testing.T, got map[string]file, want map[string]fs.FileMode, arch, prefix string) {
	t.Helper()
	for name, mode := range want {
		f, ok := got[name]
		if !ok || f.mode != mode || f.owner != "0:0" || len(f.data) == 0 {
			t.Errorf("%s: there %v, mode %v, owner %s, %d bytes; want mode %v and owner 0:0", name, ok, f.mode, f.owner, len(f.data), mode)
		}
	}
	for _, program := range []string{"userns-shim", "userns-shim-init"} {
		checkProgram(t, got[prefix+"/bin/"+program].data, arch)
	}
	unit := string(got[prefix+"/lib/systemd/system/userns-shim.service"].data)
	if !strings.Contains(unit, "\nExecStart="+prefix+"/bin/userns-shim serve ") {
		t.Errorf("the unit does not start %s/bin/userns-shim", prefix)
	}
	checkPage(t, got[prefix+"/share/man/man8/userns-shim-serve.8.gz"].data)
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkProgram holds that a program is of its architecture and static.
func checkProgram(t *testing.T, data []byte, arch string) {
	t.Helper()
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if program.Machine != machines[arch] {
		t.Errorf("a program for %v in a package for %s", program.Machine, arch)
	}
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("a program is not static")
	}
}

func checkPage(t *testing.T, compressed []byte) {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(page), `.TH "USERNS-SHIM-SERVE" "8"`) || !strings.Contains(string(page), older.program) {
		t.Errorf("the manual page begins with %.200q, %v", page, err)
	}
}

func TestDebContents(t *testing.T) {
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			deb := older.deb(t, arch)
			out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--fsys-tarfile", deb).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := wantFiles("/usr")
			want["/etc/userns-shim/config.yaml"] = 0o644
			want["/usr/share/zsh/vendor-completions/_userns-shim"] = 0o644
			want["/usr/share/doc/userns-shim/copyright"] = 0o644
			want["/usr/share/doc/userns-shim/changelog.gz"] = 0o644
			checkFiles(t, untar(t, bytes.NewReader(out), 0), want, arch, "/usr")
			for field, value := range map[string]string{"Version": older.packages + "-1", "Architecture": arch, "Depends": "passwd, uidmap"} {
				if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", deb, field)); got != value {
					t.Errorf("%s is %q, want %q", field, got, value)
				}
			}
			if got := run(t, "dpkg-deb", "-I", deb, "conffiles"); got != "/etc/userns-shim/config.yaml\n" {
				t.Errorf("conffiles are %q", got)
			}
		})
	}
}

func TestRPMContents(t *testing.T) {
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			rpm := older.rpm(t, arch)
			want := wantFiles("/usr")
			want["/usr/share/zsh/site-functions/_userns-shim"] = 0o644
			want["/usr/share/licenses/userns-shim/LICENSE"] = 0o644
			listed := run(t, "rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME} %{FILEGROUPNAME}\\n]", rpm)
			for name, mode := range want {
				if line := fmt.Sprintf("%s 10%04o root root\n", name, mode); !strings.Contains(listed, line) {
					t.Errorf("no %q in\n%s", line, listed)
				}
			}
			for query, want := range map[string]string{
				"-qpc": configFile + "\n",
				"--queryformat=%{VERSION}-%{RELEASE}.%{ARCH}": older.packages + "-1." + rpmArch[arch],
				"--queryformat=%{BUILDHOST} %{LICENSE}":       "localhost Apache-2.0",
			} {
				if got := run(t, "rpm", "-qp", query, rpm); got != want {
					t.Errorf("rpm %s prints %q, want %q", query, got, want)
				}
			}
			// A file that the operator has changed stays, and a new one is put beside it.
			if flags := run(t, "rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\\n]", rpm); !strings.Contains(flags, configFile+" cn\n") {
				t.Errorf("%s is not config(noreplace): %s", configFile, flags)
			}
			requires := run(t, "rpm", "-qpR", rpm)
			for _, need := range []string{"/usr/sbin/useradd", "/usr/bin/getsubids", "/bin/sh"} {
				if !strings.Contains(requires, need+"\n") {
					t.Errorf("the package does not require %s: %s", need, requires)
				}
			}
		})
	}
}

func TestTarballContents(t *testing.T) {
	for arch := range machines {
		t.Run(arch, func(t *testing.T) {
			packed, err := os.Open(older.tarball(t, arch))
			if err != nil {
				t.Fatal(err)
			}
			defer packed.Close()
			r, err := gzip.NewReader(packed)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]file{}
			for name, f := range untar(t, r, 1) {
				files["/usr/local"+name] = f
			}
			want := wantFiles("/usr/local")
			want["/usr/local/share/userns-shim/config.yaml"] = 0o644
			want["/usr/local/share/zsh/site-functions/_userns-shim"] = 0o644
			want["/usr/local/share/doc/userns-shim/LICENSE"] = 0o644
			checkFiles(t, files, want, arch, "/usr/local")
		})
	}
}

// TestPackageVersionsSort: a candidate comes before its release, commits after it, and a build without a tag before all.
func TestPackageVersionsSort(t *testing.T) {
	last := "0"
	for _, tc := range [][2]string{
		{"601248a-dirty", "0.0.0~git20260102.601248a.dirty"},
		{"v0.0.0-unknown", "0.0.0~unknown"},
		{"v0.9.9", "0.9.9"},
		{"v1.0.0-alpha.1", "1.0.0~alpha.1"},
		{"v1.0.0-rc.1", "1.0.0~rc.1"},
		{"v1.0.0-rc.1-3-g601248a", "1.0.0~rc.1+3.g601248a"},
		{"v1.0.0", "1.0.0"},
		{"v1.0.0-5-g601248a", "1.0.0+5.g601248a"},
		{"v1.0.0-6-g601248a-dirty", "1.0.0+6.g601248a+dirty"},
		{"v1.0.1", "1.0.1"},
	} {
		got := strings.TrimSpace(run(t, "../../hack/package-version.sh", tc[0], "20260102"))
		if got != tc[1] {
			t.Errorf("%s becomes %s, want %s", tc[0], got, tc[1])
		}
		run(t, "dpkg", "--compare-versions", last, "lt", got)
		last = got
	}
}
