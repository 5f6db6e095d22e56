package varlink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// echo is an interface with a method that returns its parameters, and others that fail.
func echo() Interface {
	return Interface{
		Name: "io.example.Echo", Description: "interface io.example.Echo",
		Methods: map[string]Method{
			"Echo": func(in map[string]json.RawMessage) (any, error) { return in, nil },
			"Fail": func(map[string]json.RawMessage) (any, error) { return nil, NewError("io.example.Echo.Failed") },
			"Break": func(map[string]json.RawMessage) (any, error) {
				return nil, errors.New("broken")
			},
		},
	}
}

// serve returns the path of the socket of a server.
func serve(t *testing.T, limits Limits) string {
	t.Helper()
	s, err := New(Options{Info: Info{"vendor", "product", "1", "https://example.com"}, Interfaces: []Interface{echo()}, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// client is one end of a connection.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, socket string) *client {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{conn, bufio.NewReader(conn)}
}

// send writes a message as it stands.
func (c *client) send(t *testing.T, message string) {
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		t.Fatal(err)
	}
}

func (c *client) receive(t *testing.T) string {
	t.Helper()
	text, err := c.in.ReadString(0)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text, "\x00")
}

// cutOff fails unless the server has closed the connection.
func (c *client) cutOff(t *testing.T) {
	t.Helper()
	if text, err := c.in.ReadString(0); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("the connection is open: %q, %v", text, err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestCalls(t *testing.T) {
	socket := serve(t, Limits{})
	c := dial(t, socket)
	for message, want := range map[string]string{
		`{"method":"io.example.Echo.Echo","parameters":{"a":[1,"x"],"b":null}}`: `{"parameters":{"a":[1,"x"]}}`,
		`{"method":"io.example.Echo.Echo"}`:                                     `{"parameters":null}`,
		`{"method":"io.example.Echo.Echo","parameters":{},"more":true}`:         `{"parameters":{}}`,
		`{"method":"io.example.Echo.Fail","parameters":{}}`:                     `{"error":"io.example.Echo.Failed","parameters":{}}`,
		`{"method":"io.example.Echo.Echo","upgrade":true}`:                      `{"error":"org.varlink.service.MethodNotImplemented","parameters":{"method":"io.example.Echo.Echo"}}`,
		`{"method":"io.example.Echo.None"}`:                                     `{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"io.example.Echo.None"}}`,
		`{"method":"io.example.None.Echo"}`:                                     `{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"io.example.None"}}`,
		`{"method":"x"}`:                                                        `{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"x"}}`,
		`{"method":"org.varlink.service.GetInfo"}`: `{"parameters":{"vendor":"vendor","product":"product","version":"1","url":"https://example.com",` +
			`"interfaces":["io.example.Echo","org.varlink.service"]}}`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.example.Echo"}}`: `{"parameters":{"description":"interface io.example.Echo"}}`,
		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x.y"}}`:             `{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"x.y"}}`,
		`{"method":"org.varlink.service.GetInterfaceDescription"}`:                                              `{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"interface"}}`,
	} {
		c.send(t, message+"\x00")
		if got := c.receive(t); got != want {
			t.Errorf("%s gives %s, want %s", message, got, want)
		}
	}
}

func TestOnewayCallsGetNoReply(t *testing.T) {
	c := dial(t, serve(t, Limits{}))
	c.send(t, `{"method":"io.example.Echo.Echo","oneway":true}`+"\x00"+`{"method":"io.example.Echo.Fail"}`+"\x00")
	if got := c.receive(t); !strings.Contains(got, "Failed") {
		t.Errorf("the first reply is %s, want the second call's", got)
	}
}

// TestWhatIsNoCallEndsTheConnection, and no other.
func TestWhatIsNoCallEndsTheConnection(t *testing.T) {
	socket := serve(t, Limits{})
	other := dial(t, socket)
	for _, message := range []string{
		"\x00", "{\x00", "[]\x00", `"x"` + "\x00", `{"method":""}` + "\x00", `{"method":1}` + "\x00", `{"method":"a.b","parameters":[]}` + "\x00",
		`{"method":"io.example.Echo.Break"}` + "\x00", strings.Repeat("[", 16383) + "\x00", strings.Repeat("x", 16<<10),
	} {
		c := dial(t, socket)
		c.send(t, message)
		c.cutOff(t)
	}
	other.send(t, `{"method":"io.example.Echo.Echo"}`+"\x00")
	other.receive(t)
}

func TestNewRefusesInterfacesWithoutNames(t *testing.T) {
	for _, i := range []Interface{{}, {Name: "a.b"}, {Name: serviceName, Description: "x"}} {
		if _, err := New(Options{Interfaces: []Interface{i}}); err == nil {
			t.Errorf("%+v is accepted", i)
		}
	}
}

func FuzzDecodeCall(f *testing.F) {
	f.Add([]byte(`{"method":"a.b","parameters":{"x":null,"y":1},"oneway":true,"more":true}`))
	f.Add([]byte(`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":[]}}`))
	f.Add([]byte(`{"method":".","parameters":{"":{}}}`))
	d := newDispatcher(Info{}, []Interface{echo()})
	f.Fuzz(func(t *testing.T, message []byte) {
		c, err := decodeCall(message)
		if err != nil {
			return
		}
		text, err := encodeReply(d.call(c))
		if strings.HasSuffix(c.Method, ".Break") {
			return
		}
		if err != nil || len(text) == 0 || strings.IndexByte(string(text), 0) != len(text)-1 || !json.Valid(text[:len(text)-1]) {
			t.Fatalf("%q gives %q, %v", message, text, err)
		}
	})
}

func ExampleInvalidParameter() {
	text, err := encodeReply(nil, InvalidParameter("uid"))
	fmt.Printf("%q %v\n", text, err)
	// Output: "{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"uid\"}}\x00" <nil>
}
