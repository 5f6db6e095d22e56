package e2epackage

import (
	"strings"
	"testing"
)

const (
	idsScript  = "../../packaging/kubelet-ids"
	kubeletIDs = "2013265920:100532224"
)

// idsCase is a node's files before kubelet-ids, and what is to come of it.
type idsCase struct {
	setup          string // a script
	subuid, subgid string // kubelet's lines afterwards, without the owner, joined by a blank
	says           string // what it complains of, empty where it has to succeed
	noUser         bool
}

var idsCases = map[string]idsCase{
	"lines of useradd":       {"useradd kubelet", "100000:65536", "100000:65536", "from a multiple of 65536", false},
	"not a whole range":      {ids("kubelet:524288:65000", "kubelet:524288:65000"), "524288:65000", "524288:65000", "a multiple of so many", false},
	"the host's ids":         {ids("kubelet:0:1048576", "kubelet:0:1048576"), "0:1048576", "0:1048576", "from a multiple of 65536", false},
	"a fresh node":           {"", kubeletIDs, kubeletIDs, "", false},
	"no files":               {"rm /etc/subuid /etc/subgid", kubeletIDs, kubeletIDs, "", false},
	"a user without ids":     {"useradd --system kubelet", kubeletIDs, kubeletIDs, "", false},
	"others' lines":          {"useradd -m joe", kubeletIDs, kubeletIDs, "", false},
	"lines of its own":       {ids("kubelet:524288:1048576", "kubelet:524288:1048576"), "524288:1048576", "524288:1048576", "", false},
	"lines by number":        {"useradd --system --uid 700 kubelet; " + ids("700:524288:65536", "700:524288:65536"), "", "", "", false},
	"uids alone":             {ids("kubelet:524288:65536", "joe:1:1"), "524288:65536", "524288:65536", "", false},
	"gids alone":             {ids("joe:1:1", "kubelet:524288:65536"), "524288:65536", "524288:65536", "", false},
	"different lines":        {ids("kubelet:524288:65536", "kubelet:589824:65536"), "524288:65536", "589824:65536", "the same ids", false},
	"two lines":              {ids("kubelet:524288:65536\nkubelet:655360:65536", "kubelet:524288:65536"), "524288:65536 655360:65536", "524288:65536", "one line", false},
	"somebody has the range": {ids("joe:2013265900:65536", "joe:1:1"), "", "", "joe:2013265900:65536", true},
	"somebody has its gids":  {ids("joe:1:1", "joe:2113798143:1"), "", "", "joe:2113798143:1", true},
	"neighbours":             {ids("joe:2013200384:65536", "joe:2113798144:1"), kubeletIDs, kubeletIDs, "", false},
	"ids of a name service":  {"echo 'subid: sss' >>/etc/nsswitch.conf", "", "", "", true},
	"pods that have others":  {"mkdir -p /var/lib/kubelet/pods/uid; touch /var/lib/kubelet/pods/uid/userns", "", "", "drain the node first", true},
	"locked for a while":     {"(echo $$ >/etc/subuid.lock; sleep 2; rm /etc/subuid.lock) & ", kubeletIDs, kubeletIDs, "", false},
}

func ids(subuid, subgid string) string {
	return "printf '" + subuid + "\n' >/etc/subuid; printf '" + subgid + "\n' >/etc/subgid"
}

// TestKubeletIDs runs the script twice on nodes of all kinds: the second time changes nothing.
func TestKubeletIDs(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	script := r.put(t, idsScript)
	r.run(t, "cp -a /etc /etc.fresh")
	for name, tc := range idsCases {
		t.Run(name, func(t *testing.T) {
			r.run(t, "rm -rf /etc /var/lib/kubelet; cp -a /etc.fresh /etc; "+tc.setup+"\n"+"sh "+script+" || echo exit $?")
			before := r.run(t, "cat /etc/passwd /etc/subuid /etc/subgid")
			out, err := r.try(t, "sh "+script)
			if (err == nil) != (tc.says == "") || !strings.Contains(out, tc.says) {
				t.Errorf("kubelet-ids says %q, %v; want %q", out, err, tc.says)
			}
			if after := r.run(t, "cat /etc/passwd /etc/subuid /etc/subgid"); after != before {
				t.Errorf("the second run made\n%s\nof\n%s", after, before)
			}
			for file, want := range map[string]string{"subuid": tc.subuid, "subgid": tc.subgid} {
				if got := linesOf(r.read(t, "/etc/"+file), "kubelet"); got != want {
					t.Errorf("%s gives kubelet %q, want %q", file, got, want)
				}
			}
			if _, err := r.try(t, "id kubelet"); (err != nil) != tc.noUser {
				t.Errorf("id kubelet: %v, want no such user: %v", err, tc.noUser)
			}
		})
	}
}

// TestKubeletIDsForTooFewPods: kubelet does not start with ids for fewer pods than its maxPods, 110 by default, which
// its command line can change too: so the script only says so.
func TestKubeletIDsForTooFewPods(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	script := r.put(t, idsScript)
	r.run(t, ids("kubelet:524288:7143424", "kubelet:524288:7143424")+"; mkdir -p /var/lib/kubelet") // 109
	for maxPods, complains := range map[string]bool{"": true, "maxPods: 109": false, "kind: KubeletConfiguration\nmaxPods: 250 # many": true} {
		r.write(t, "/var/lib/kubelet/config.yaml", maxPods+"\n")
		if out := r.run(t, "sh "+script); strings.Contains(out, "ids for 109 pods") != complains {
			t.Errorf("with %q the script says %q, want a warning: %v", maxPods, out, complains)
		}
	}
}

// linesOf are the ids that one of the files gives to an owner.
func linesOf(text, owner string) string {
	var out []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), owner+":"); ok {
			out = append(out, rest)
		}
	}
	return strings.Join(out, " ")
}

// TestKubeletIDsAtOnce: several installers at the same time leave one line, and nobody else's lines are lost.
func TestKubeletIDsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	script := r.put(t, idsScript)
	r.run(t, "useradd -m joe; for i in 1 2 3 4 5 6; do sh "+script+" & done; wait")
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text := r.read(t, file)
		if linesOf(text, "kubelet") != kubeletIDs || linesOf(text, "joe") == "" {
			t.Errorf("%s is\n%s", file, text)
		}
	}
	if got := r.run(t, "getsubids kubelet; getsubids -g kubelet"); got != "0: kubelet 2013265920 100532224\n0: kubelet 2013265920 100532224" {
		t.Errorf("getsubids prints\n%s", got)
	}
}
