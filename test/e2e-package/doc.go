// Package e2epackage tests what users install: the .deb, the .rpm, the tarball and the unit. Packages go into a
// small Debian of the test's own (hack/package-root.sh) and, with a real systemd, into the machine of the e2e-vm tier;
// pods run on what was installed there. What pods can do is test/e2e's subject.
package e2epackage
