package varlink

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// serviceName is the interface that every Varlink service has.
const serviceName = "org.varlink.service"

const serviceDescription = `# Tells what a Varlink service offers.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
`

// Info tells a client whom it talks to.
type Info struct {
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Version string `json:"version"`
	URL     string `json:"url"`
}

// dispatcher finds methods by their names.
type dispatcher struct {
	interfaces map[string]Interface
}

func newDispatcher(info Info, interfaces []Interface) dispatcher {
	d := dispatcher{interfaces: map[string]Interface{}}
	for _, i := range interfaces {
		d.interfaces[i.Name] = i
	}
	d.interfaces[serviceName] = Interface{
		Name:        serviceName,
		Description: serviceDescription,
		Methods: map[string]Method{
			"GetInfo": func(map[string]json.RawMessage) (any, error) {
				return struct {
					Info
					Interfaces []string `json:"interfaces"`
				}{info, slices.Sorted(maps.Keys(d.interfaces))}, nil
			},
			"GetInterfaceDescription": d.describe,
		},
	}
	return d
}

func (d dispatcher) describe(parameters map[string]json.RawMessage) (any, error) {
	var name string
	if err := json.Unmarshal(parameters["interface"], &name); err != nil {
		return nil, InvalidParameter("interface")
	}
	found, ok := d.interfaces[name]
	if !ok {
		return nil, interfaceNotFound(name)
	}
	return map[string]string{"description": found.Description}, nil
}

func (d dispatcher) call(c call) (any, error) {
	dot := strings.LastIndexByte(c.Method, '.')
	if dot < 0 {
		return nil, interfaceNotFound(c.Method)
	}
	found, ok := d.interfaces[c.Method[:dot]]
	if !ok {
		return nil, interfaceNotFound(c.Method[:dot])
	}
	method, ok := found.Methods[c.Method[dot+1:]]
	if !ok {
		return nil, &Error{Name: serviceName + ".MethodNotFound", Parameters: map[string]string{"method": c.Method}}
	}
	if c.Upgrade {
		return nil, &Error{Name: serviceName + ".MethodNotImplemented", Parameters: map[string]string{"method": c.Method}}
	}
	return method(c.Parameters)
}

func interfaceNotFound(name string) *Error {
	return &Error{Name: serviceName + ".InterfaceNotFound", Parameters: map[string]string{"interface": name}}
}
