package idnames

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/varlink"
)

const (
	// Service is the name of the lookup service and of its socket below /run/systemd/userdb.
	Service = "io.userns-shim.IDPool"

	interfaceName = "io.systemd.UserDatabase"

	// nobody is the primary group of all records, as in those of systemd-machined: which group a user of a pod
	// has is known inside of the pod alone.
	nobody = 65534

	disposition = "container"
)

// The errors of the API.
const (
	errNoRecord    = interfaceName + ".NoRecordFound"
	errBadService  = interfaceName + ".BadService"
	errConflicting = interfaceName + ".ConflictingRecordFound"
	errNonMatching = interfaceName + ".NonMatchingRecordFound"
	errEnumeration = interfaceName + ".EnumerationNotSupported"
)

const description = `# Users and groups of the host ids that pods have. Records are looked up by id or by name, not enumerated: there
# can be as many as ids. No group has members.
interface io.systemd.UserDatabase

method GetUserRecord(uid: ?int, userName: ?string, fuzzyNames: ?[]string, dispositionMask: ?[]string,
                     uidMin: ?int, uidMax: ?int, service: string) -> (record: object, incomplete: bool)

method GetGroupRecord(gid: ?int, groupName: ?string, fuzzyNames: ?[]string, dispositionMask: ?[]string,
                      gidMin: ?int, gidMax: ?int, service: string) -> (record: object, incomplete: bool)

method GetMemberships(userName: ?string, groupName: ?string, service: string) -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error NonMatchingRecordFound()
error EnumerationNotSupported()
`

// userRecord is a JSON User Record of systemd.
type userRecord struct {
	UserName      string `json:"userName"`
	UID           uint32 `json:"uid"`
	GID           uint32 `json:"gid"`
	RealName      string `json:"realName"`
	HomeDirectory string `json:"homeDirectory"`
	Shell         string `json:"shell"`
	Locked        bool   `json:"locked"`
	Service       string `json:"service"`
	Disposition   string `json:"disposition"`
}

// groupRecord is a JSON Group Record of systemd.
type groupRecord struct {
	GroupName   string `json:"groupName"`
	GID         uint32 `json:"gid"`
	Description string `json:"description"`
	Service     string `json:"service"`
	Disposition string `json:"disposition"`
}

type found struct {
	Record     any  `json:"record"`
	Incomplete bool `json:"incomplete"`
}

// Interface returns the lookup API for the names.
func (n *Names) Interface() varlink.Interface {
	return varlink.Interface{
		Name:        interfaceName,
		Description: description,
		Methods: map[string]varlink.Method{
			"GetUserRecord":  n.getUser,
			"GetGroupRecord": n.getGroup,
			"GetMemberships": getMemberships,
		},
	}
}

func (n *Names) getUser(parameters map[string]json.RawMessage) (any, error) {
	name, err := n.lookup(parameters, keys{id: "uid", name: "userName", least: "uidMin", most: "uidMax"})
	if err != nil {
		return nil, err
	}
	return found{Record: userRecord{
		UserName:      name.Name,
		UID:           name.ID,
		GID:           nobody,
		RealName:      name.Real,
		HomeDirectory: "/",
		Shell:         "/usr/sbin/nologin",
		Locked:        true,
		Service:       Service,
		Disposition:   disposition,
	}}, nil
}

func (n *Names) getGroup(parameters map[string]json.RawMessage) (any, error) {
	name, err := n.lookup(parameters, keys{id: "gid", name: "groupName", least: "gidMin", most: "gidMax"})
	if err != nil {
		return nil, err
	}
	return found{Record: groupRecord{
		GroupName:   name.Name,
		GID:         name.ID,
		Description: name.Real,
		Service:     Service,
		Disposition: disposition,
	}}, nil
}

func getMemberships(parameters map[string]json.RawMessage) (any, error) {
	var userName, groupName string
	if err := read(parameters, map[string]any{"userName": &userName, "groupName": &groupName}); err != nil {
		return nil, err
	}
	return nil, varlink.NewError(errNoRecord)
}

// keys are the names of parameters, which differ between users and groups.
type keys struct {
	id, name, least, most string
}

// query is what a client looks for; nil for a parameter that it does not give.
type query struct {
	id          *uint32
	name        *string
	least, most *uint32
	fuzzy       []string
	disposition []string
}

func (n *Names) lookup(parameters map[string]json.RawMessage, k keys) (Name, error) {
	var q query
	err := read(parameters, map[string]any{
		k.id: &q.id, k.name: &q.name, k.least: &q.least, k.most: &q.most, "fuzzyNames": &q.fuzzy, "dispositionMask": &q.disposition,
	})
	if err != nil {
		return Name{}, err
	}
	var name Name
	ok := false
	switch {
	case q.id != nil:
		if name, ok = n.ByID(*q.id); !ok && q.name != nil {
			_, other := n.ByName(*q.name)
			return Name{}, missing(other)
		}
	case q.name != nil:
		name, ok = n.ByName(*q.name)
	default:
		return Name{}, varlink.NewError(errEnumeration)
	}
	switch {
	case !ok:
		return Name{}, varlink.NewError(errNoRecord)
	case q.name != nil && *q.name != name.Name:
		return Name{}, varlink.NewError(errConflicting)
	case !q.matches(name):
		return Name{}, varlink.NewError(errNonMatching)
	}
	return name, nil
}

// missing is the error when the id is nobody's; other says that the name is another id's.
func missing(other bool) error {
	if other {
		return varlink.NewError(errConflicting)
	}
	return varlink.NewError(errNoRecord)
}

// matches holds the name against the filters that are not keys.
func (q query) matches(n Name) bool {
	switch {
	case q.least != nil && n.ID < *q.least, q.most != nil && n.ID > *q.most:
		return false
	case q.disposition != nil && !slices.Contains(q.disposition, disposition):
		return false
	}
	return q.fuzzy == nil || slices.ContainsFunc(q.fuzzy, func(part string) bool {
		part = strings.ToLower(part)
		return strings.Contains(n.Name, part) || strings.Contains(strings.ToLower(n.Real), part)
	})
}

// read decodes the parameters into what fields points at, checks that there are no others, and that the service is
// the one that is meant.
func read(parameters map[string]json.RawMessage, fields map[string]any) error {
	service := ""
	for name, value := range parameters {
		to, ok := fields[name]
		if name == "service" {
			to, ok = &service, true
		}
		if !ok || json.Unmarshal(value, to) != nil {
			return varlink.InvalidParameter(name)
		}
	}
	if service != Service {
		return varlink.NewError(errBadService)
	}
	return nil
}
