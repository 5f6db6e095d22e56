// Package cri serves CRI's RuntimeService and ImageService. It validates requests, converts
// between CRI's messages and the plain specs of the managers, puts their operations in order,
// and is the only package that turns errors into gRPC codes. It keeps no state of its own and
// touches neither kernel nor containerd.
package cri
