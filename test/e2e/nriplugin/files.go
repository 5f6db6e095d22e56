package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/encoding/protojson"
)

// The files in the plugin's directory. A test writes the first and the last whole, by renaming.
const (
	scriptFile  = "script.json"
	logFile     = "log.jsonl"
	updatesFile = "updates.json"
)

// script says how to answer. Package e2e has the same types for writing it. Messages of NRI are in their JSON form.
type script struct {
	// Fail is the error of a request, by its name.
	Fail map[string]string `json:"fail,omitempty"`
	// Hang names requests that are not answered.
	Hang map[string]bool `json:"hang,omitempty"`
	// Adjust is the ContainerAdjustment of a container, by its name.
	Adjust map[string]json.RawMessage `json:"adjust,omitempty"`
	// Update are the ContainerUpdates that a request is answered with, by its name.
	Update map[string][]json.RawMessage `json:"update,omitempty"`
}

// entry is a line of the log.
type entry struct {
	Event      string            `json:"event"`
	PID        int               `json:"pid"` // of the plugin
	Pod        json.RawMessage   `json:"pod,omitempty"`
	Container  json.RawMessage   `json:"container,omitempty"`
	Pods       []json.RawMessage `json:"pods,omitempty"`
	Containers []json.RawMessage `json:"containers,omitempty"`
	Resources  json.RawMessage   `json:"resources,omitempty"`
	Failed     int               `json:"failed,omitempty"`
	Error      string            `json:"error,omitempty"`
}

type files struct{ dir string }

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// script is read anew for each request; without a file nothing is asked for.
func (f files) script() (script, error) {
	var s script
	data, err := os.ReadFile(f.path(scriptFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", scriptFile, err)
	}
	return s, nil
}

// write adds a line to the log.
func (f files) write(e entry) (err error) {
	e.PID = os.Getpid()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(f.path(logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	_, err = log.Write(append(line, '\n'))
	return err
}

func parseUpdates(texts []json.RawMessage) ([]*api.ContainerUpdate, error) {
	var out []*api.ContainerUpdate
	for _, text := range texts {
		update := &api.ContainerUpdate{}
		if err := protojson.Unmarshal(text, update); err != nil {
			return nil, fmt.Errorf("read update: %w", err)
		}
		out = append(out, update)
	}
	return out, nil
}
