package idnames

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/userns-shim/userns-shim/pkg/varlink"
)

// ask calls a method with parameters in JSON; the service is set unless they have one.
func ask(t *testing.T, method, parameters string) (record map[string]any, errName string) {
	t.Helper()
	var in map[string]json.RawMessage
	if err := json.Unmarshal([]byte(parameters), &in); err != nil {
		t.Fatal(err)
	}
	if _, ok := in["service"]; !ok {
		in["service"] = json.RawMessage(`"` + Service + `"`)
	}
	out, err := newNames().Interface().Methods[method](in)
	var told *varlink.Error
	if errors.As(err, &told) {
		return nil, strings.TrimPrefix(told.Name, interfaceName+".")
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var reply struct {
		Record     map[string]any `json:"record"`
		Incomplete *bool          `json:"incomplete"`
	}
	if err := json.Unmarshal(text, &reply); err != nil || reply.Incomplete == nil || *reply.Incomplete {
		t.Fatalf("reply %s, %v", text, err)
	}
	return reply.Record, ""
}

func TestRecords(t *testing.T) {
	user, _ := ask(t, "GetUserRecord", `{"uid": 6554600}`)
	want := map[string]any{
		"userName": "userns-web-7d4b9c6f5-0064-1000", "uid": 6554600.0, "gid": 65534.0, "realName": "ID 1000 of pod default/web-7d4b9c6f5-x2k8p",
		"homeDirectory": "/", "shell": "/usr/sbin/nologin", "locked": true, "service": "io.userns-shim.IDPool", "disposition": "container",
	}
	if !reflect.DeepEqual(user, want) {
		t.Errorf("user %v, want %v", user, want)
	}
	group, _ := ask(t, "GetGroupRecord", `{"groupName": "userns-web-7d4b9c6f5-0064-1000"}`)
	want = map[string]any{
		"groupName": "userns-web-7d4b9c6f5-0064-1000", "gid": 6554600.0, "description": "ID 1000 of pod default/web-7d4b9c6f5-x2k8p",
		"service": "io.userns-shim.IDPool", "disposition": "container",
	}
	if !reflect.DeepEqual(group, want) {
		t.Errorf("group %v, want %v", group, want)
	}
}

// TestLookups holds the API's rules on keys, filters and the service, for users and groups alike.
func TestLookups(t *testing.T) {
	const id, name = `6554600`, `"userns-web-7d4b9c6f5-0064-1000"`
	for parameters, want := range map[string]string{
		`{"uid": ` + id + `}`:                                             "",
		`{"uid": ` + id + `, "userName": null}`:                           "",
		`{"userName": ` + name + `}`:                                      "",
		`{"uid": ` + id + `, "userName": ` + name + `}`:                   "",
		`{"uid": 6554601, "userName": ` + name + `}`:                      "ConflictingRecordFound",
		`{"uid": ` + id + `, "userName": "root"}`:                         "ConflictingRecordFound",
		`{"uid": 1000, "userName": ` + name + `}`:                         "ConflictingRecordFound",
		`{"uid": 1000, "userName": "root"}`:                               "NoRecordFound",
		`{"uid": 1000}`:                                                   "NoRecordFound",
		`{"userName": "root"}`:                                            "NoRecordFound",
		`{}`:                                                              "EnumerationNotSupported",
		`{"dispositionMask": ["container"]}`:                              "EnumerationNotSupported",
		`{"uid": ` + id + `, "service": "io.systemd.Machine"}`:            "BadService",
		`{"uid": ` + id + `, "service": ""}`:                              "BadService",
		`{"uid": ` + id + `, "dispositionMask": ["system", "container"]}`: "",
		`{"uid": ` + id + `, "dispositionMask": ["regular"]}`:             "NonMatchingRecordFound",
		`{"uid": ` + id + `, "uidMin": 6554600, "uidMax": 6554600}`:       "",
		`{"uid": ` + id + `, "uidMin": 6554601}`:                          "NonMatchingRecordFound",
		`{"uid": ` + id + `, "uidMax": 6554599}`:                          "NonMatchingRecordFound",
		`{"uid": ` + id + `, "fuzzyNames": ["nothing", "DEFAULT/web"]}`:   "",
		`{"userName": ` + name + `, "fuzzyNames": ["nothing"]}`:           "NonMatchingRecordFound",
		`{"uid": -1}`:         "org.varlink.service.InvalidParameter",
		`{"uid": 4294967296}`: "org.varlink.service.InvalidParameter",
		`{"uid": "1000"}`:     "org.varlink.service.InvalidParameter",
		`{"UID": ` + id + `}`: "org.varlink.service.InvalidParameter",
	} {
		t.Run(parameters, func(t *testing.T) {
			if _, got := ask(t, "GetUserRecord", parameters); got != want {
				t.Errorf("GetUserRecord: %q, want %q", got, want)
			}
			forGroup := strings.NewReplacer("uid", "gid", "userName", "groupName").Replace(parameters)
			if _, got := ask(t, "GetGroupRecord", forGroup); got != want {
				t.Errorf("GetGroupRecord: %q, want %q", got, want)
			}
		})
	}
}

func TestNobodyIsAMember(t *testing.T) {
	for parameters, want := range map[string]string{
		`{}`: "NoRecordFound", `{"userName": "root", "groupName": "wheel"}`: "NoRecordFound",
		`{"service": "x"}`: "BadService", `{"userName": 1}`: "org.varlink.service.InvalidParameter",
	} {
		if _, got := ask(t, "GetMemberships", parameters); got != want {
			t.Errorf("%s: %q, want %q", parameters, got, want)
		}
	}
}
