package idnames

import "testing"

// A lookup takes no longer when all ids have names: nothing is searched.
func BenchmarkByID(b *testing.B) {
	n := newNames()
	for b.Loop() {
		if _, ok := n.ByID(100*unit + 1000); !ok {
			b.Fatal("no name")
		}
	}
}

func BenchmarkByName(b *testing.B) {
	n := newNames()
	for b.Loop() {
		if _, ok := n.ByName("userns-web-7d4b9c6f5-0064-1000"); !ok {
			b.Fatal("no id")
		}
	}
}
