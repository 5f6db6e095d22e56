# userns-shim. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.0.0-unknown)
LDFLAGS := -X github.com/userns-shim/userns-shim/internal/version.Version=$(VERSION)

# Tools. make expands what a target needs when it reads the line, so they stand before all targets.
CONTAINERD := $(addprefix $(BIN)/,containerd ctr containerd-shim-runc-v2)
RUNC := $(BIN)/runc
CNI := $(addprefix $(BIN)/cni/,bandwidth bridge firewall host-local loopback portmap)
LINTER := $(BIN)/golangci-lint
GOTESTSUM := $(BIN)/gotestsum
PROMTOOL := $(BIN)/promtool
KUBELET := $(BIN)/kubelet
NFPM := $(BIN)/nfpm
CRIU := $(BIN)/criu
USERDB := $(BIN)/userdb
GO_STAMP := $(BIN)/.go-version

# Where the end-to-end tests, the demo and the benchmark find all programs.
export USERNS_SHIM_BIN := $(abspath $(BIN))

.PHONY: build
build: ## bin/userns-shim, static
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: require-root build tools test-deps ## the main job on this machine; KEEP=1 leaves it running
	KEEP=$(KEEP) hack/demo.sh

.PHONY: bench
bench: build tools test-deps ## side by side with containerd's own CRI plugin
	hack/bench/run.sh

.PHONY: packages
packages: $(NFPM) ## .deb, .rpm and tarball for amd64 and arm64 into _output/packages; VERSION=v1.2.3
	rm -rf _output/packages
	VERSION=$(VERSION) hack/package.sh _output/packages amd64 arm64
	@ls _output/packages

.PHONY: release
release: $(NFPM) ## packages, checksums and SBOM into _output/release, built twice and compared; VERSION=v1.2.3
	VERSION=$(VERSION) hack/release.sh _output/release
	@ls _output/release

.PHONY: clean
clean: ## remove what make built
	rm -rf $(BIN) _output

##
## Tools: containerd, runc, CNI plugins, linter, test runner and promtool, each pinned by a
## module of its own below hack/tools. A tool is rebuilt when its pin, the build
## script or the Go version changes.
##

.PHONY: tools
tools: $(CONTAINERD) $(RUNC) $(CNI) $(LINTER) $(GOTESTSUM) $(PROMTOOL) ## containerd, runc, CNI plugins, linters, promtool into bin/

# pin lists what a tool is built from.
pin = $(addprefix hack/tools/$(1)/,go.mod go.sum) hack/tools/build.sh $(GO_STAMP)
build_tool = hack/tools/build.sh $(1) $(BIN) && touch $(2)

$(CONTAINERD) &: $(call pin,containerd) | build-deps
	$(call build_tool,containerd,$(CONTAINERD))
$(RUNC): $(call pin,runc) | build-deps
	$(call build_tool,runc,$@)
$(CNI) &: $(call pin,cni)
	$(call build_tool,cni,$(CNI))
$(LINTER): $(call pin,golangci-lint)
	$(call build_tool,golangci-lint,$@)
$(GOTESTSUM): $(call pin,gotestsum)
	$(call build_tool,gotestsum,$@)
$(PROMTOOL): $(call pin,promtool)
	$(call build_tool,promtool,$@)

.PHONY: kubelet
kubelet: $(KUBELET) ## kubelet into bin/: four minutes on two cores when nothing is cached

$(NFPM): $(call pin,nfpm)
	$(call build_tool,nfpm,$@)

$(KUBELET): $(call pin,kubelet)
	$(call build_tool,kubelet,$@)

$(CRIU): hack/tools/criu.sh hack/tools/debian.sh
	hack/tools/criu.sh $(BIN) && touch $@
$(USERDB): hack/tools/userdb.sh hack/tools/debian.sh
	hack/tools/userdb.sh $(BIN) && touch $@

# Written only when it differs, so that its time is that of the last change.
$(GO_STAMP): FORCE
	@mkdir -p $(@D)
	@go env GOVERSION | cmp -s - $@ || go env GOVERSION >$@
.PHONY: FORCE
FORCE:

# Debian packages: installed when root, else named.
.PHONY: build-deps test-deps vm-deps package-deps
build-deps:
	@hack/deps.sh build
test-deps:
	@hack/deps.sh test
vm-deps:
	@hack/deps.sh vm
package-deps:
	@hack/deps.sh package

##
## Tests. Unit and integration are two runs of one set of tests:
##
##   unit         every package, without privilege: when root calls make, the
##                test binaries run as uid 65534, and tests that call
##                testkit.RequireRoot skip.
##   integration  the packages whose tests import internal/testkit, as root:
##                nothing that calls testkit.RequireRoot skips there. A test
##                that needs root asks by that call and by nothing else (the
##                linter forbids os.Geteuid in tests), so that none is left out
##                of this run.
##   e2e          test/e2e, on the programs in bin/.
##   e2e-kubelet  test/e2e-kubelet: pods that a real kubelet runs.
##   e2e-package  test/e2e-package: packages of two versions, installed into a small Debian.
##   e2e-vm       tests of test/e2e inside of an emulated machine (hack/vm).
##
## internal/layering belongs to lint: it asks the go command, which has no
## module cache as uid 65534.
##

.PHONY: test
test: ## every tier that this machine can run; root for the real ones
	@hack/test.sh

# So that a moment in which the proxy does not answer fails no tier: the go command does not try again by itself. Tools' modules
# are downloaded the same way when they are built.
.PHONY: modules
modules: ## download the Go modules of programs and tests
	@hack/retry.sh go list -deps -test ./... >/dev/null
	@GOARCH=arm64 hack/retry.sh go list -deps ./cmd/... >/dev/null
	@cd test/manifests && ../../hack/retry.sh go list -deps -test ./... >/dev/null
	@cd hack/tools/kubelet && ../../retry.sh go mod download k8s.io/kubernetes

.PHONY: lint
lint: $(LINTER) ## linters, layering, package comments, generated files, manifests
	@failed=0; \
	$(LINTER) run ./... || failed=1; \
	go test -count=1 ./internal/layering/ || failed=1; \
	go run ./hack/configdoc -check || failed=1; \
	(cd test/manifests && go vet ./... && go test -count=1 ./...) || failed=1; \
	exit $$failed

.PHONY: fmt
fmt: $(LINTER) ## format all Go files
	$(LINTER) fmt

.PHONY: generate
generate: ## docs/configuration.md and the default file, from the configuration's types
	go run ./hack/configdoc

.PHONY: unit
unit: $(GOTESTSUM) | build-deps ## tests without privilege, with the race detector
	@hack/tier.sh unit

.PHONY: scale
scale: $(GOTESTSUM) ## the id pool with every range, and 10,000 cycles under kills: without the race detector
	@hack/tier.sh scale

.PHONY: integration
integration: tools require-root | build-deps test-deps ## tests that need root, with the race detector
	@hack/tier.sh integration

.PHONY: e2e
e2e: build tools $(CRIU) $(USERDB) require-root | test-deps ## the real thing end to end
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(BIN)/ ./test/e2e/probe ./test/e2e/nriplugin
	@hack/tier.sh e2e

.PHONY: e2e-kubelet
e2e-kubelet: build tools $(KUBELET) $(CRIU) require-root | test-deps ## pods of a real kubelet without an API server
	@hack/tier.sh e2e-kubelet

# Two versions, one of them for both architectures.
PACKAGE_TEST := _output/package-test
.PHONY: package-test
package-test: $(NFPM)
	rm -rf $(PACKAGE_TEST)
	VERSION=v1.0.0 hack/package.sh $(PACKAGE_TEST)/older $(PACKAGE_ARCHS)
	VERSION=v1.1.0-rc.1 hack/package.sh $(PACKAGE_TEST)/newer $(shell go env GOARCH)

.PHONY: e2e-package
e2e-package: PACKAGE_ARCHS := amd64 arm64
e2e-package: build tools package-test require-root | test-deps package-deps ## packages: contents, installation, upgrade with pods, removal
	hack/package-root.sh $(BIN)/package-root.tar
	@hack/tier.sh e2e-package

.PHONY: e2e-vm
e2e-vm: PACKAGE_ARCHS := $(shell go env GOARCH)
e2e-vm: build tools $(CRIU) $(USERDB) $(KUBELET) package-test require-root | vm-deps ## e2e on another kernel, cgroup v2, systemd and AppArmor; LONG=1, RUN=regexp
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(BIN)/ ./test/e2e/probe ./test/e2e/nriplugin
	@hack/tier.sh e2e-vm

.PHONY: require-root
require-root:
	@[[ $$EUID -eq 0 ]] || { echo 'needs root, for namespaces, mounts and cgroups: sudo -E env "PATH=$$PATH" make $(MAKECMDGOALS)' >&2; exit 1; }
