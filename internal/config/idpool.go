package config

// Extent is a run of host ids.
type Extent struct {
	// Start is the first host id.
	// Unit: a host id.
	// Example: 2113798144
	Start uint32 `yaml:"start"`
	// Length counts ids and is a multiple of 65536.
	// Unit: ids.
	// Example: 33554432
	Length uint64 `yaml:"length"`
}

// ClaimsPolicy says which mappings a client may claim.
type ClaimsPolicy string

// Strict claims stay off the host's own ids, off each other and off what cannot be mapped;
// permissive ones are whatever the kernel takes, which conformance suites need.
const (
	ClaimsStrict     ClaimsPolicy = "strict"
	ClaimsPermissive ClaimsPolicy = "permissive"
)

// ConflictPolicy says what happens to a pod whose mapping cannot be claimed.
type ConflictPolicy string

// The policies: another range instead, or FailedPrecondition.
const (
	ConflictRemap  ConflictPolicy = "remap"
	ConflictReject ConflictPolicy = "reject"
)

// IDPool configures the node's ledger of host ids.
type IDPool struct {
	// KubeletExtents are the ids from which kubelet draws: auto (as kubelet finds them) or a list.
	// Example: [{start: 2013265920, length: 100532224}]
	KubeletExtents KubeletExtents `yaml:"kubeletExtents"`
	// Extents are the ids from which userns-shim draws itself; empty takes 2113798144:33554432.
	// Example: [{start: 2113798144, length: 33554432}]
	Extents []Extent `yaml:"extents"`
	// Claims says which mappings a client may claim. Strict ones stay off the host's own ids, off each other and off
	// what cannot be mapped; permissive ones are whatever the kernel takes, which conformance suites need.
	// Example: strict
	Claims ClaimsPolicy `yaml:"claims"`
	// OnConflict says what happens to a pod whose mapping cannot be claimed: remap gives it another range, reject
	// fails with FailedPrecondition.
	// Example: reject
	OnConflict ConflictPolicy `yaml:"onConflict"`
	// Quarantine is how long a released range rests before it is given out again.
	// Example: 30m
	Quarantine Duration `yaml:"quarantine"`
	// ReconcileInterval is the pause between two looks for leaked ranges, which are also looked for at the start;
	// 0s looks at the start only. On large nodes the pauses are longer: looking takes 2 % of the time at most.
	// Example: 1m
	ReconcileInterval Duration `yaml:"reconcileInterval"`
	// ForecastWindow is how far back the forecast looks when it tells how long a segment will last; a
	// twelfth of it has to be seen before there is one.
	// Example: 6h
	ForecastWindow Duration `yaml:"forecastWindow"`
	// ScanInterval is the pause between two looks for others on the node that have ids of the pool, from the start on; 0s never looks.
	// Example: 15m
	ScanInterval Duration `yaml:"scanInterval"`
}

// KubeletExtents is "auto", or a list of extents.
type KubeletExtents struct {
	// Auto reads the extents from where kubelet reads them.
	Auto bool
	// Extents is used when Auto is false.
	Extents []Extent
}
