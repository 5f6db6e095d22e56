package foreign

// Node is where the sources of a node are.
type Node struct {
	// Root is the host's root directory.
	Root string
	// Proc is a proc file system of the host's PID namespace.
	Proc string
	// Pins is a pattern of the paths at which the user namespaces of pods are pinned.
	Pins string
	// OtherPins are patterns of those at which pods' other namespaces are.
	OtherPins []string
	// List lists the name service; nil leaves it out.
	List Lister
}

// Sources are all that this package knows.
func (n Node) Sources() []Source {
	sources := []Source{
		Processes(n.Proc, n.Pins), PinCopies(n.Proc, n.Pins, n.OtherPins...), SubIDs(n.Root), NSResource(n.Root), Nspawn(n.Root), Storage(n.Root), LXC(n.Root),
	}
	if n.List != nil {
		sources = append(sources, Names(n.List))
	}
	return sources
}
