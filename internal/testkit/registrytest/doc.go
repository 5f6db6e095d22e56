// Package registrytest makes handlers that stand before a registry of the lab and spoil, guard or hold back its
// answers, for tests of pulls. It listens nowhere and knows no images beyond those that are wrong on purpose.
package registrytest
