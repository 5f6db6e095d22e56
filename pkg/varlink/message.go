package varlink

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Method answers one call. Parameters are those of the call by name, without those that are null. It returns what
// becomes the reply's parameters, a JSON object, or an error; one that is no *Error ends the connection.
type Method func(parameters map[string]json.RawMessage) (any, error)

// Interface is a named set of methods.
type Interface struct {
	Name        string
	Description string // in Varlink's own definition language, as GetInterfaceDescription returns it
	Methods     map[string]Method
}

// Error is a reply that tells of an error by a name of the protocol or of an interface, with its parameters.
type Error struct {
	Name       string `json:"error"`
	Parameters any    `json:"parameters"`
}

func (e *Error) Error() string { return fmt.Sprintf("varlink error %s", e.Name) }

// NewError returns an error that has no parameters.
func NewError(name string) *Error { return &Error{Name: name, Parameters: struct{}{}} }

// InvalidParameter is the protocol's error for a parameter that a method does not have or cannot use.
func InvalidParameter(name string) *Error {
	return &Error{Name: serviceName + ".InvalidParameter", Parameters: map[string]string{"parameter": name}}
}

// call is a message of a client.
type call struct {
	Method     string                     `json:"method"`
	Parameters map[string]json.RawMessage `json:"parameters"`
	Oneway     bool                       `json:"oneway"`
	Upgrade    bool                       `json:"upgrade"`
}

type reply struct {
	Parameters any `json:"parameters"`
}

var errNoCall = errors.New("message is no call")

// decodeCall reads a message without its final zero byte.
func decodeCall(message []byte) (call, error) {
	var c call
	if err := json.Unmarshal(message, &c); err != nil {
		return call{}, fmt.Errorf("%w: %w", errNoCall, err)
	}
	if c.Method == "" {
		return call{}, fmt.Errorf("%w: it names no method", errNoCall)
	}
	for name, value := range c.Parameters {
		if string(value) == "null" {
			delete(c.Parameters, name)
		}
	}
	return c, nil
}

// encodeReply returns the message that answers a call, with its final zero byte.
func encodeReply(parameters any, err error) ([]byte, error) {
	var message any = reply{parameters}
	if err != nil {
		var told *Error
		if !errors.As(err, &told) {
			return nil, err
		}
		message = told
	}
	text, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode reply: %w", err)
	}
	return append(text, 0), nil
}
