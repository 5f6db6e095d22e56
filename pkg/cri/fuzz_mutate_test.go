package cri

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// tape is the fuzzer's input, from which choices are read. At its end all choices are the first.
type tape struct{ data []byte }

func (t *tape) next() byte {
	if len(t.data) == 0 {
		return 0
	}
	b := t.data[0]
	t.data = t.data[1:]
	return b
}

// pick chooses one of n.
func (t *tape) pick(n int) int { return int(t.next()) % n }

// take returns up to n bytes.
func (t *tape) take(n int) []byte {
	n = min(n, len(t.data))
	out := t.data[:n]
	t.data = t.data[n:]
	return out
}

// mutator changes requests as a tape says.
type mutator struct {
	tape *tape
	dirs fuzzDirs
	ids  []string // of what exists
}

// notUTF8 stands in a message for bytes of the same number that protobuf would not marshal.
const notUTF8 = "<not valid UTF-8>"

// marshal returns the message as it is sent.
func marshal(msg proto.Message) (wire, error) {
	data, err := proto.Marshal(msg)
	return bytes.ReplaceAll(data, []byte(notUTF8), bytes.Repeat([]byte{0xff}, len(notUTF8))), err
}

// many is how many entries a list or map gets at once.
const many = 300

// mutate changes one field of msg or of a message in it.
func (m *mutator) mutate(msg protoreflect.Message) {
	fields := msg.Descriptor().Fields()
	if fields.Len() == 0 {
		return
	}
	field := fields.Get(m.tape.pick(fields.Len()))
	switch {
	case field.IsMap():
		m.mutateMap(msg.Mutable(field).Map(), field)
	case field.IsList():
		m.mutateList(msg.Mutable(field).List(), field)
	case field.Kind() == protoreflect.MessageKind:
		switch m.tape.pick(6) {
		case 0:
			msg.Clear(field)
		case 1:
			msg.Set(field, msg.NewField(field))
		default:
			m.mutate(msg.Mutable(field).Message())
		}
	default:
		msg.Set(field, m.scalar(field))
	}
}

func (m *mutator) mutateMap(entries protoreflect.Map, field protoreflect.FieldDescriptor) {
	key := func() protoreflect.MapKey { return m.scalar(field.MapKey()).MapKey() }
	if field.MapValue().Kind() == protoreflect.MessageKind {
		entries.Set(key(), entries.NewValue())
		return
	}
	entries.Set(key(), m.scalar(field.MapValue()))
}

func (m *mutator) mutateList(list protoreflect.List, field protoreflect.FieldDescriptor) {
	switch choice := m.tape.pick(6); {
	case choice == 0:
		list.Truncate(0)
	case choice == 1:
		for range many {
			list.Append(list.NewElement())
		}
	case field.Kind() != protoreflect.MessageKind:
		list.Append(m.scalar(field))
	case choice == 2 || list.Len() == 0:
		m.mutate(list.AppendMutable().Message())
	default:
		m.mutate(list.Get(m.tape.pick(list.Len())).Message())
	}
}

func (m *mutator) scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(m.tape.pick(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(m.number()))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(m.number()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(m.number())
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(m.number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(m.number()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.NaN())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(m.tape.take(m.tape.pick(32)))
	}
	return protoreflect.ValueOfString(m.confine(string(field.Name()), m.text()))
}

func (m *mutator) number() int64 {
	numbers := []int64{
		0, 1, -1, 2, 3, 4, 1000, 65535, 65536, 1 << 20, 1<<20 + 65536, 1<<31 - 65536, 1 << 31,
		math.MaxInt32, math.MinInt32, math.MaxUint32, math.MaxInt64, math.MinInt64, math.MaxInt64 / int64(1e9), 1 << 33,
	}
	return numbers[m.tape.pick(len(numbers))]
}

// words are values of interest.
func words(dirs fuzzDirs) []string {
	return []string{
		"", ".", "..", "/", "a", "a/../b", "../../escape", "link/escape", "link", "link.log", "x.log", "a/", "a\nb", "a\x00b", "\u202e", notUTF8, "%s%n",
		"-1", "0", "99999999999999999999", "web", "root:root", "ALL", "CAP_SYS_ADMIN", "runc", "always", "never", "SIGKILL", "s0:c1,c2",
		"containerd.io/gc.ref.content", "cdi.k8s.io/x", "vendor.com/class=dev", "kernel.shm_rmid_forced", "net.ipv4.ip_forward", "noatime",
		"demo", fuzzImage, "sha256:00", "UPPER/case", "localhost:1/x@sha256:00", "profile.json", "localhost//profile.json", "/dev/null", "rwm",
		strings.Repeat("a", maxName), strings.Repeat("a", maxName+1), strings.Repeat("a/", 3000), strings.Repeat("b", 70_000),
		dirs.host + "/file", dirs.host + "/new/dir", dirs.host + "/file/below", dirs.log, dirs.log + "/pod", dirs.log + "/../outside",
	}
}

// text is one of the words, an id of what exists or the beginning of one, or the tape's own bytes.
func (m *mutator) text() string {
	words := words(m.dirs)
	choice := m.tape.pick(len(words) + 8)
	switch {
	case choice < len(words):
		return words[choice]
	case choice < len(words)+4 && len(m.ids) > 0:
		id := m.ids[m.tape.pick(len(m.ids))]
		return id[:min(len(id), m.tape.pick(len(id)+1))]
	}
	return strings.ToValidUTF8(string(m.tape.take(m.tape.pick(64))), "\uFFFD")
}

// confine keeps the paths at which the server makes directories below the test's own: that is what those fields
// are for, and there is nothing to be found in it.
func (m *mutator) confine(field, value string) string {
	if !slices.Contains([]string{"host_path", "log_directory", "location", "output_path"}, field) || !filepath.IsAbs(value) {
		return value
	}
	if clean := filepath.Clean(value); clean == "/dev/null" || strings.HasPrefix(clean, m.dirs.base+"/") {
		return value
	}
	return m.dirs.host + value[:strings.IndexByte(value+"..", '.')]
}
