// Package ocispec builds the OCI runtime specification of a container from plain values.
//
// Build, BuildExec, UpdateResources, CgroupsPath and ResolveUser are pure: what they need from
// the host (features, device nodes, the text of a seccomp profile, the image's /etc/passwd) is
// resolved before or reached through an injected function. So a specification can be compared
// with a golden file, and a container can be rebuilt from its record.
//
// The package does not know CRI's protobuf types, makes no mount, namespace or directory, reads
// no file of the host and does not decide which mounts are idmapped. The subpackages userdb and
// hostdev hold the little I/O that belongs to it: opening files below a rootfs, and reading
// device nodes.
package ocispec
