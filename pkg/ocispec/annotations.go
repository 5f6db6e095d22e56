package ocispec

import "maps"

// The annotations that containerd's CRI plugin sets, and that shims (to group the containers
// of a pod), sandboxed runtimes and node agents read.
const (
	AnnotationContainerType    = "io.kubernetes.cri.container-type"
	AnnotationContainerName    = "io.kubernetes.cri.container-name"
	AnnotationImageName        = "io.kubernetes.cri.image-name"
	AnnotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	AnnotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	AnnotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	AnnotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
)

// annotations lets CRI's own win: a pod that could set its sandbox id would choose its shim.
func (c *Container) annotations() map[string]string {
	out := make(map[string]string, len(c.Annotations)+7)
	maps.Copy(out, c.Annotations)
	out[AnnotationContainerType] = "container"
	out[AnnotationContainerName] = c.Identity.ContainerName
	out[AnnotationImageName] = c.Identity.ImageName
	out[AnnotationSandboxID] = c.Identity.SandboxID
	out[AnnotationSandboxName] = c.Identity.SandboxName
	out[AnnotationSandboxNamespace] = c.Identity.SandboxNamespace
	out[AnnotationSandboxUID] = c.Identity.SandboxUID
	return out
}

// ReservedAnnotation tells whether CRI's own annotations have the key.
func ReservedAnnotation(key string) bool {
	_, reserved := (&Container{}).annotations()[key]
	return reserved
}
