package cri

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The states of docs/compatibility.md.
const (
	stateServed        = "served"
	stateUnimplemented = "unimplemented"
	stateHonoured      = "honoured"
	stateIgnored       = "ignored"
	stateRefused       = "refused"
	stateAnswered      = "answered"
	stateEmpty         = "empty"
)

var fieldStates = []string{stateHonoured, stateIgnored, stateRefused, stateAnswered, stateEmpty}

// windows begins the names of all messages that are not for Linux; the page has one line for them.
const windows = "Windows"

// pageRow is what the page says of one RPC or field.
type pageRow struct{ state, note string }

var (
	pageLine = regexp.MustCompile("^\\| (`[^|]*`) \\| ([a-z]*) \\|(.*)\\|$")
	pageName = regexp.MustCompile("`([^`]*)`")
)

// readPage returns the rows by name, such as Mount.readonly. A name that begins with a dot belongs to the
// message of the name before it.
func readPage(t *testing.T) map[string]pageRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]pageRow{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		cells := pageLine.FindStringSubmatch(line)
		if cells == nil {
			if strings.HasPrefix(line, "| `") {
				t.Errorf("the page has a line that cannot be read: %s", line)
			}
			continue
		}
		var message string
		for _, match := range pageName.FindAllStringSubmatch(cells[1], -1) {
			name := match[1]
			if strings.HasPrefix(name, ".") {
				name = message + name
			}
			message, _, _ = strings.Cut(name, ".")
			if _, twice := rows[name]; twice {
				t.Errorf("the page has %s twice", name)
			}
			rows[name] = pageRow{state: cells[2], note: strings.TrimSpace(cells[3])}
		}
	}
	return rows
}

func apiFile() protoreflect.FileDescriptor {
	return (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
}

// apiMethods are the RPCs by the name that the page has for them.
func apiMethods() map[string]protoreflect.MethodDescriptor {
	out := map[string]protoreflect.MethodDescriptor{}
	services := apiFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			out[string(services.Get(i).Name())+"."+string(methods.Get(j).Name())] = methods.Get(j)
		}
	}
	return out
}

// apiFields are the fields of all messages for Linux by the name that the page has for them.
func apiFields() map[string]protoreflect.FieldDescriptor {
	out := map[string]protoreflect.FieldDescriptor{}
	messages := apiFile().Messages()
	for i := range messages.Len() {
		message := messages.Get(i)
		if strings.HasPrefix(string(message.Name()), windows) {
			continue
		}
		for j := range message.Fields().Len() {
			field := message.Fields().Get(j)
			out[string(message.Name())+"."+string(field.Name())] = field
		}
	}
	return out
}

// TestCompatibilityPageIsComplete holds that the page has every RPC and field of the API and no others,
// each with a state that such a thing can have.
func TestCompatibilityPageIsComplete(t *testing.T) {
	rows, methods, fields := readPage(t), apiMethods(), apiFields()
	if len(methods) != 43 {
		t.Errorf("the API has %d RPCs; the page begins with 43", len(methods))
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row, method, field := rows[name], methods[name], fields[name]
		switch {
		case name == windows+"*":
		case method == nil && field == nil:
			t.Errorf("%s is on the page and not in the API", name)
		case method != nil && row.state != stateServed && row.state != stateUnimplemented,
			field != nil && !slices.Contains(fieldStates, row.state):
			t.Errorf("%s has the state %q", name, row.state)
		case row.note == "" && (row.state == stateIgnored || row.state == stateRefused || row.state == stateEmpty):
			t.Errorf("%s is %s and the page does not say why", name, row.state)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is missing on the page", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is missing on the page", name)
		}
	}
	if rows[windows+"*"].state != stateIgnored {
		t.Errorf("the page has no line for the messages of %s", windows)
	}
}

// TestCompatibilityPageKnowsWhatIsServed calls each RPC: those that the page calls unimplemented answer so, and
// no others do.
func TestCompatibilityPageKnowsWhatIsServed(t *testing.T) {
	rows := readPage(t)
	for name, method := range apiMethods() {
		want := stateServed
		if callWithoutManagers(method) == codes.Unimplemented {
			want = stateUnimplemented
		}
		if got := rows[name].state; got != want {
			t.Errorf("%s is %q on the page and %s in truth", name, got, want)
		}
		fields := method.Input().Fields()
		for i := range fields.Len() {
			field := string(method.Input().Name()) + "." + string(fields.Get(i).Name())
			if refused := rows[field].state == stateRefused; refused != (want == stateUnimplemented) {
				t.Errorf("%s is %q on the page and %s is %s", field, rows[field].state, name, want)
			}
		}
	}
}

// callWithoutManagers sends an empty request to a service without managers. A handler that panics for the lack
// of them is one that exists: the embedded server of the API never does.
func callWithoutManagers(method protoreflect.MethodDescriptor) (code codes.Code) {
	services := map[protoreflect.Name]any{"RuntimeService": &runtimeService{}, "ImageService": &imageService{}}
	handler := reflect.ValueOf(services[method.Parent().Name()]).MethodByName(string(method.Name()))
	defer func() {
		if recover() != nil {
			code = codes.Internal
		}
	}()
	args := make([]reflect.Value, handler.Type().NumIn())
	for i := range args {
		args[i] = reflect.Zero(handler.Type().In(i))
		if in := handler.Type().In(i); in == reflect.TypeFor[context.Context]() {
			args[i] = reflect.ValueOf(context.Background())
		} else if in.Kind() == reflect.Pointer {
			args[i] = reflect.New(in.Elem())
		}
	}
	results := handler.Call(args)
	err, _ := results[len(results)-1].Interface().(error)
	return status.Code(err)
}

// answeredByLibrary are fields of answers that k8s.io/cri-streaming fills in.
var answeredByLibrary = []string{"ExecResponse.url", "AttachResponse.url", "PortForwardResponse.url"}

// TestCompatibilityPageClaimsWhatCodeUses holds that this package reads each field that the page calls honoured and
// writes each that it calls answered. It goes by the field's name alone, so it cannot tell fields of one name apart.
func TestCompatibilityPageClaimsWhatCodeUses(t *testing.T) {
	names := namesOfPackage(t)
	rows := readPage(t)
	for name, field := range apiFields() {
		row, plain := rows[name], goName(string(field.Name()))
		switch {
		case row.state == stateHonoured && !names["Get"+plain] && !names[plain]:
			t.Errorf("%s is honoured on the page, and nothing calls Get%s", name, plain)
		case row.state == stateAnswered && !names[plain] && !slices.Contains(answeredByLibrary, name):
			t.Errorf("%s is answered on the page, and nothing sets %s", name, plain)
		}
	}
}

// goName is the name of a field in Go, as protoc-gen-go makes it.
func goName(field string) string {
	var out strings.Builder
	for word := range strings.SplitSeq(field, "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}

// namesOfPackage are the selectors, and the keys of composite literals, in the files of this package that are
// no tests.
func namesOfPackage(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				names[n.Sel.Name] = true
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok {
					names[key.Name] = true
				}
			}
			return true
		})
	}
	return names
}
