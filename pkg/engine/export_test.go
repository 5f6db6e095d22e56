package engine

// KernelTells is kernelTells for the tests of package engine_test.
var KernelTells = kernelTells
