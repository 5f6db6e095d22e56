package engine

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// resolver asks hosts for content only where their capabilities have "pull". containerd's own (2.4) heeds
// capabilities when it resolves a name, and fetches content from any host.
type resolver struct {
	remotes.Resolver
	content remotes.Resolver
}

func newResolver(hosts docker.RegistryHosts) remotes.Resolver {
	return resolver{
		Resolver: docker.NewResolver(docker.ResolverOptions{Hosts: hosts}),
		content: docker.NewResolver(docker.ResolverOptions{Hosts: func(name string) ([]docker.RegistryHost, error) {
			found, err := hosts(name)
			return slices.DeleteFunc(found, func(h docker.RegistryHost) bool {
				return !h.Capabilities.Has(docker.HostCapabilityPull)
			}), err
		}}),
	}
}

// Fetcher fetches content that was resolved.
func (r resolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	return r.content.Fetcher(ctx, ref)
}
