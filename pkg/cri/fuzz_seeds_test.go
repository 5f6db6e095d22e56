package cri

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// step is one step of a seed: the method's index, a variant, and the mutations as mutator reads them.
func step(method protoreflect.Name, variant byte, mutations ...[]byte) []byte {
	for i, m := range fuzzAPI {
		if m.Name() == method {
			out := []byte{byte(i), variant, byte(len(mutations))}
			for _, m := range mutations {
				out = append(out, m...)
			}
			return out
		}
	}
	panic(fmt.Sprintf("the API has no %s", method))
}

// exits is the step in which a container ends by itself.
func exits(code byte) []byte { return []byte{byte(len(fuzzAPI) + opExit), code} }

// together is two steps, which are calls, at the same time.
func together(a, b []byte) []byte {
	return slices.Concat([]byte{byte(len(fuzzAPI) + opTogether)}, a, b)
}

func sequence(steps ...[]byte) []byte { return slices.Concat(steps...) }

// running makes a pod with a user namespace and a container that runs in it.
func running() []byte {
	return sequence(step("RunPodSandbox", variantUserNS), step("CreateContainer", 0), step("StartContainer", 0))
}

// plainSeeds are each RPC alone with nothing there, and each with a pod and a container.
func plainSeeds() [][]byte {
	var out [][]byte
	for i, method := range fuzzAPI {
		call := step(method.Name(), 0)
		garbled := []byte{byte(i), 0, 7, 3, 0x0a, 0xff, 0xff}
		out = append(out, sequence(call, garbled), sequence(running(), call, call, garbled))
	}
	return append(out, checkpointSeeds()...)
}

// fuzzSeeds are, beside the plain ones, each RPC with one field after the other mutated, and sequences in which
// states meet.
func fuzzSeeds() [][]byte {
	out := plainSeeds()
	for _, method := range fuzzAPI {
		for field := range method.Input().Fields().Len() {
			for value := range 3 {
				mutation := []byte{byte(field), byte(5 * value), byte(3 * value), byte(5 * value)}
				out = append(out, sequence(running(), step(method.Name(), 0, mutation)))
			}
		}
	}
	out = append(append(out, regressionSeeds()...), racingSeeds()...)
	return append(out,
		sequence(step("RunPodSandbox", variantSharedPID|variantMapped|variantUserNS), step("RunPodSandbox", 1), step("RunPodSandbox", 2|variantHostNetwork),
			step("CreateContainer", 0), step("CreateContainer", 1), step("StartContainer", 0), exits(0), step("StartContainer", 0), step("StartContainer", 1),
			step("ListPodSandboxStats", 0), step("StopPodSandbox", 0), step("CreateContainer", 0), step("RemovePodSandbox", 0)),
		sequence(step("GetContainerEvents", 0), running(), exits(1), step("RemoveContainer", 0), step("ContainerStatus", 0)),
		sequence(step("PullImage", 0), step("PullImage", 1), step("StreamImages", 0), step("RemoveImage", 0), step("ImageStatus", 0)),
		sequence(step("RunPodSandbox", variantUserNS), step("RunPodSandbox", variantUserNS|1), step("RunPodSandbox", variantUserNS|2),
			step("RunPodSandbox", variantUserNS|3), step("RunPodSandbox", variantUserNS|variantMapped|3), step("StreamPodSandboxes", 0)),
	)
}

// racingSeeds are calls that get into each other's way.
func racingSeeds() [][]byte {
	pod, container := step("RunPodSandbox", variantUserNS|variantSharedPID), step("CreateContainer", 0)
	var out [][]byte
	for _, pair := range [][2]protoreflect.Name{
		{"StopPodSandbox", "RemovePodSandbox"},
		{"RemovePodSandbox", "RemovePodSandbox"},
		{"CreateContainer", "RemovePodSandbox"},
		{"StartContainer", "RemovePodSandbox"},
		{"StartContainer", "StopPodSandbox"},
		{"StartContainer", "RemoveContainer"},
		{"StartContainer", "StartContainer"},
		{"CreateContainer", "CreateContainer"},
		{"RunPodSandbox", "RunPodSandbox"},
	} {
		out = append(out, sequence(pod, container, together(step(pair[0], 0), step(pair[1], 0)), step("StartContainer", 0)))
	}
	for _, pair := range [][2]protoreflect.Name{
		{"ExecSync", "RemoveContainer"},
		{"ExecSync", "RemovePodSandbox"},
		{"StopContainer", "RemoveContainer"},
		{"ReopenContainerLog", "StopContainer"},
		{"UpdateContainerResources", "RemoveContainer"},
		{"ContainerStats", "RemovePodSandbox"},
		{"ListPodSandboxMetrics", "RemovePodSandbox"},
	} {
		out = append(out, sequence(running(), together(step(pair[0], 0), step(pair[1], 0))))
	}
	return append(out, together(step("RunPodSandbox", variantUserNS), step("RunPodSandbox", variantUserNS)))
}

// regressionSeeds are requests that once had effects which they should not have.
func regressionSeeds() [][]byte {
	pod, long := step("RunPodSandbox", 0), strings.Repeat("b", 70_000)
	create := func(word string, path ...protoreflect.Name) []byte {
		return step("CreateContainer", 0, setWord(&runtimeapi.CreateContainerRequest{}, word, append([]protoreflect.Name{"config"}, path...)...))
	}
	start := step("StartContainer", 0)
	return [][]byte{
		sequence(pod, create("a/../b", "mounts", "host_path"), start), // made directories where the server was started
		sequence(pod, create("link.log", "log_path"), start, step("ReopenContainerLog", 0)),
		sequence(pod, create("link/escape", "log_path"), start),
		sequence(pod, create("a/", "log_path"), start), // failed at the start
		sequence(pod, create("", "devices", "host_path"), start),
		step("PullImage", 0, setWord(&runtimeapi.PullImageRequest{}, long, "image", "image")), // was quoted as a whole
		sequence(running(), step("StopContainer", 0, []byte{1, 16})),                          // MaxInt64 seconds became less than 0
	}
}

// setWord is the mutation that sets the string at a path of fields to one of the words. Of a list it is the first
// entry's, which is added where there is none.
func setWord(msg proto.Message, word string, path ...protoreflect.Name) []byte {
	const descend, firstEntry, addEntry = 2, 3, 2
	at := msg.ProtoReflect().Descriptor()
	var out []byte
	for _, name := range path {
		field := at.Fields().ByName(name)
		out = append(out, byte(field.Index()))
		switch at = field.Message(); {
		case field.IsList() && name == "devices":
			out = append(out, addEntry)
		case field.IsList():
			out = append(out, firstEntry, 0)
		case at != nil:
			out = append(out, descend)
		}
	}
	return append(out, byte(slices.Index(words(fuzzDirs{}), word)))
}
