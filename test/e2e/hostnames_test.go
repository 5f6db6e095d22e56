package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// namesSocket is where a node's systemd would look.
const namesSocket = "/run/systemd/userdb/io.userns-shim.IDPool"

// record is a user's or a group's, as far as both have the same.
type record struct {
	UserName, GroupName, RealName, Shell, Service, Disposition string
	UID, GID                                                   *uint32
	Locked                                                     bool
}

// lookUp asks for a record as systemd does, on a connection of its own; parameters are JSON without the braces.
func lookUp(t *testing.T, n *nodetest.Node, method, parameters string) (rec record, errName string) {
	t.Helper()
	conn, err := n.World.Dial(t.Context(), "unix", namesSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return callOn(t, conn, method, parameters)
}

func callOn(t *testing.T, conn net.Conn, method, parameters string) (rec record, errName string) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := fmt.Fprintf(conn, `{"method":"io.systemd.UserDatabase.%s","parameters":{%s,"service":"io.userns-shim.IDPool"}}`+"\x00", method, parameters)
	if err != nil {
		t.Fatal(err)
	}
	text, err := bufio.NewReader(conn).ReadString(0)
	if err != nil {
		t.Fatal(err)
	}
	var reply struct {
		Error      string
		Parameters struct{ Record record }
	}
	if err := json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), &reply); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return reply.Parameters.Record, strings.TrimPrefix(reply.Error, "io.systemd.UserDatabase.")
}

// named gives a pod a name as a Deployment's pods have them.
func named(name string) nodetest.PodOption {
	return func(req *runtimeapi.RunPodSandboxRequest) { req.Config.Metadata.Name = name }
}

// wantName looks an id up as user and as group, and the name of it in turn.
func wantName(t *testing.T, n *nodetest.Node, id uint32, name string) {
	t.Helper()
	user, errName := lookUp(t, n, "GetUserRecord", fmt.Sprintf(`"uid":%d`, id))
	if user.UserName != name || errName != "" || !user.Locked || user.Disposition != "container" || !strings.HasSuffix(user.Shell, "/nologin") {
		t.Errorf("user %d is %+v %s, want %s", id, user, errName, name)
	}
	group, errName := lookUp(t, n, "GetGroupRecord", fmt.Sprintf(`"gid":%d`, id))
	if group.GroupName != name || errName != "" {
		t.Errorf("group %d is %+v %s, want %s", id, group, errName, name)
	}
	user, errName = lookUp(t, n, "GetUserRecord", fmt.Sprintf(`"userName":%q`, name))
	if user.UID == nil || *user.UID != id {
		t.Errorf("user %s is %+v %s, want %d", name, user, errName, id)
	}
	group, errName = lookUp(t, n, "GetGroupRecord", fmt.Sprintf(`"groupName":%q`, name))
	if group.GID == nil || *group.GID != id {
		t.Errorf("group %s is %+v %s, want %d", name, group, errName, id)
	}
}

// idName is the name of an id in the range.
func idName(label string, start, offset uint32) string {
	return fmt.Sprintf("userns%s-%04x-%d", label, start>>16, offset)
}

// TestHostIDsHaveNames through what happens to a range: free, acquired, claimed, in quarantine, reserved; and over a
// restart of the daemon.
func TestHostIDsHaveNames(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{PoolRanges: 3, KubeletRanges: 3})
	first := n.Pool().Start
	wantName(t, n, first+1000, idName("_free", first, 1000))
	wantName(t, n, n.Kubelet().Start+7, idName("_free", n.Kubelet().Start, 7))

	pod := n.RunPod(t, named("web-7d4b9c6f5-x2k8p"))
	acquired := pod.Range(t)
	for _, offset := range []uint32{0, 1000, 65535} {
		wantName(t, n, acquired+offset, idName("-web-7d4b9c6f5", acquired, offset))
	}
	if user, _ := lookUp(t, n, "GetUserRecord", fmt.Sprintf(`"uid":%d`, acquired)); user.RealName != "ID 0 of pod e2e/web-7d4b9c6f5-x2k8p" {
		t.Errorf("the real name is %q", user.RealName)
	}
	claimed := n.Kubelet().Start + 65536
	n.RunPod(t, named("claimer"), nodetest.Mapping(claimed))
	wantName(t, n, claimed+5, idName("-claimer", claimed, 5))
	wantPool(t, n, "reserve", "nfs", fmt.Sprintf("%d:65536", n.Pool().Start+2*65536))
	wantName(t, n, n.Pool().Start+2*65536, idName("_reserved", n.Pool().Start+2*65536, 0))

	if err := n.Daemon.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := n.Daemon.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantName(t, n, acquired+1000, idName("-web-7d4b9c6f5", acquired, 1000))
	pod.Remove(t)
	wantName(t, n, acquired+1000, idName("_quarantined", acquired, 1000))
	for parameters, want := range map[string]string{
		fmt.Sprintf(`"userName":%q`, idName("-web-7d4b9c6f5", acquired, 1000)):           "NoRecordFound",
		fmt.Sprintf(`"uid":%d,"userName":%q`, claimed+6, idName("-claimer", claimed, 5)): "ConflictingRecordFound",
		fmt.Sprintf(`"uid":%d`, n.Pool().Start+3*65536):                                  "NoRecordFound",
		`"uid":0`: "NoRecordFound", `"uid":1000`: "NoRecordFound", `"uid":65534`: "NoRecordFound", `"uid":null`: "EnumerationNotSupported",
	} {
		if rec, got := lookUp(t, n, "GetUserRecord", parameters); got != want {
			t.Errorf("%s gives %q %+v, want %q", parameters, got, rec, want)
		}
	}
}

// hoard opens more connections than are ever open, of users that are silent, send rubbish, stop in the middle, or ask without end
// and read nothing. The function that is returned closes them.
func hoard(t *testing.T, n *nodetest.Node) (end func()) {
	t.Helper()
	call := fmt.Sprintf(`{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"uid":%d,"service":"io.userns-shim.IDPool"}}`+"\x00", n.Pool().Start+7)
	var conns []net.Conn
	for i := range 600 {
		conn, err := n.World.Dial(t.Context(), "unix", namesSocket)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if err := conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		switch { // an error is that of a connection which was cut off, sooner or later
		case i%40 == 0:
			_, _ = io.WriteString(conn, strings.Repeat(call, 2000))
		case i%3 == 1:
			_, _ = io.WriteString(conn, strings.Repeat("[", 20_000))
		case i%3 == 2:
			_, _ = io.WriteString(conn, `{"method":"org.varlink.service.GetInfo"`)
		}
	}
	return sync.OnceFunc(func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
}

// startTime is how long a pod with a container takes to start.
func startTime(t *testing.T, n *nodetest.Node, image string) time.Duration {
	t.Helper()
	began := time.Now()
	pod := n.RunPod(t, named("victim"))
	pod.Run(t, image)
	took := time.Since(began)
	wantName(t, n, pod.Range(t)+1, idName("-victim", pod.Range(t), 1))
	pod.Remove(t)
	return took
}

// TestHostileLookupsDoNotDelayPods: pods that start under the attack are compared with those in between, for other tests keep
// the machine busy.
func TestHostileLookupsDoNotDelayPods(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	startTime(t, n, image) // the first one is slower
	var quiet, attacked []time.Duration
	for range 7 {
		quiet = append(quiet, startTime(t, n, image))
		end := hoard(t, n)
		t.Cleanup(end)
		attacked = append(attacked, startTime(t, n, image))
		end()
	}
	slices.Sort(quiet)
	slices.Sort(attacked)
	t.Logf("without %v, under attack %v", quiet, attacked)
	if limit := quiet[3]*3/2 + 300*time.Millisecond; attacked[3] > limit {
		t.Errorf("a pod takes %v to start under attack, without %v: want %v at most", attacked[3], quiet[3], limit)
	}
	end := hoard(t, n)
	t.Cleanup(end)
	conn, err := n.World.Dial(t.Context(), "unix", namesSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 1000 {
		if _, errName := callOn(t, conn, "GetUserRecord", `"uid":0`); errName != "NoRecordFound" {
			t.Fatal(errName)
		}
	}
}

// setExtents changes the pool's own extents in the configuration of a daemon that is not running.
func setExtents(t *testing.T, n *nodetest.Node, e labnode.Extent) {
	t.Helper()
	text, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	line := func(e labnode.Extent) string {
		return fmt.Sprintf("  extents: [{start: %d, length: %d}]\n", e.Start, e.Length)
	}
	changed := strings.Replace(string(text), line(n.Pool()), line(e), 1)
	if changed == string(text) {
		t.Fatalf("the configuration has no line %q", line(n.Pool()))
	}
	if err := os.WriteFile(n.Daemon.Config, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}
