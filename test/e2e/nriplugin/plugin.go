package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// plugin writes down what it is told.
type plugin struct{ files files }

// Configure takes the directory from the configuration, where the plugin has one.
func (p *plugin) Configure(_ context.Context, config, runtime, _ string) (api.EventMask, error) {
	if config != "" {
		p.files.dir = config
	}
	return 0, p.files.write(entry{Event: "Configure " + runtime})
}

// Synchronize notes everything that there is.
func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	e := entry{Event: "Synchronize"}
	for _, pod := range pods {
		e.Pods = append(e.Pods, message(pod))
	}
	for _, container := range containers {
		e.Containers = append(e.Containers, message(container))
	}
	return p.answer(e)
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.note("RunPodSandbox", pod, nil)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, resources *api.LinuxResources) error {
	_, err := p.answer(entry{Event: "UpdatePodSandbox", Pod: message(pod), Resources: message(resources)})
	return err
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.note("PostUpdatePodSandbox", pod, nil)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.note("StopPodSandbox", pod, nil)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.note("RemovePodSandbox", pod, nil)
}

// CreateContainer answers with what the script has for the container's name.
func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	updates, err := p.answer(entry{Event: "CreateContainer", Pod: message(pod), Container: message(container)})
	if err != nil {
		return nil, nil, err
	}
	s, err := p.files.script()
	if err != nil {
		return nil, nil, err
	}
	text, ok := s.Adjust[container.GetName()]
	if !ok {
		return nil, updates, nil
	}
	adjust := &api.ContainerAdjustment{}
	return adjust, updates, protojson.Unmarshal(text, adjust)
}

func (p *plugin) PostCreateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.note("PostCreateContainer", pod, container)
}

func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.note("StartContainer", pod, container)
}

func (p *plugin) PostStartContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.note("PostStartContainer", pod, container)
}

func (p *plugin) UpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container, resources *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	return p.answer(entry{Event: "UpdateContainer", Pod: message(pod), Container: message(container), Resources: message(resources)})
}

func (p *plugin) PostUpdateContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.note("PostUpdateContainer", pod, container)
}

func (p *plugin) StopContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) ([]*api.ContainerUpdate, error) {
	return p.answer(entry{Event: "StopContainer", Pod: message(pod), Container: message(container)})
}

func (p *plugin) RemoveContainer(_ context.Context, pod *api.PodSandbox, container *api.Container) error {
	return p.note("RemoveContainer", pod, container)
}

func (p *plugin) note(event string, pod *api.PodSandbox, container *api.Container) error {
	e := entry{Event: event, Pod: message(pod)}
	if container != nil {
		e.Container = message(container)
	}
	_, err := p.answer(e)
	return err
}

// answer writes the request down and does what the script says.
func (p *plugin) answer(e entry) ([]*api.ContainerUpdate, error) {
	if err := p.files.write(e); err != nil {
		return nil, err
	}
	s, err := p.files.script()
	if err != nil {
		return nil, err
	}
	if s.Hang[e.Event] {
		select {} // and when the runtime has given up
	}
	if text, ok := s.Fail[e.Event]; ok {
		return nil, errors.New(text)
	}
	return parseUpdates(s.Update[e.Event])
}

// message is the JSON form of a message; one that cannot be had shows its error.
func message(m proto.Message) json.RawMessage {
	data, err := protojson.Marshal(m)
	if err != nil {
		data, _ = json.Marshal(err.Error()) // a string always can
	}
	return data
}
