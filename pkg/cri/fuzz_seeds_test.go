package cri

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
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
func exits(code byte) []byte { return []byte{byte(len(fuzzAPI)), code} }

func sequence(steps ...[]byte) []byte {
	var out []byte
	for _, s := range steps {
		out = append(out, s...)
	}
	return out
}

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
	return out
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
