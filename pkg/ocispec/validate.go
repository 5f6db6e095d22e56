package ocispec

import (
	"path"
	"strings"
)

// validate checks what does not belong to one part of the specification alone.
func (c *Container) validate() error {
	if c.ID == "" || strings.ContainsAny(c.ID, "/\x00") {
		return invalidf("container id %q", c.ID)
	}
	if c.Identity.SandboxID == "" {
		return invalidf("no sandbox id")
	}
	if err := checkPath("root filesystem", c.RootPath); err != nil {
		return err
	}
	if (c.Mapping == nil) != (c.Namespaces.User == "") {
		return invalidf("a user namespace needs both a path and a mapping")
	}
	if err := c.checkIDs(); err != nil {
		return err
	}
	for _, p := range c.Security.MaskedPaths {
		if err := checkPath("masked path", p); err != nil {
			return err
		}
	}
	for _, p := range c.Security.ReadonlyPaths {
		if err := checkPath("read-only path", p); err != nil {
			return err
		}
	}
	return nil
}

// checkPath refuses what the OCI runtime would misread: a relative path, which it resolves
// against the bundle, and a NUL byte, which ends the string in the kernel.
func checkPath(what, p string) error {
	if !path.IsAbs(p) {
		return invalidf("%s %q is not absolute", what, p)
	}
	return checkNUL(what, p)
}

func checkNUL(what string, values ...string) error {
	for _, v := range values {
		if strings.IndexByte(v, 0) >= 0 {
			return invalidf("%s %q contains a NUL byte", what, v)
		}
	}
	return nil
}
