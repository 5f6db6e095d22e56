package engine

// KernelTells is kernelTells for the tests of package engine_test.
var KernelTells = kernelTells

// PullCallers is how many callers wait for a pull that is under way.
func (e *Engine) PullCallers() (callers int) {
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	for _, fl := range e.pulls.byKey {
		callers += fl.callers
	}
	return callers
}
