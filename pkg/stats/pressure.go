package stats

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"
)

// readPressure reads a pressure file. It is for hybrid machines: their hierarchy of version 2 has
// no controllers, and the library looks for pressure only beside a controller's files. A kernel
// without pressure, or with it switched off, is none.
func readPressure(dir, file string) *Pressure {
	data, err := slurp(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return parsePressure(data)
}

// parsePressure reads lines like "some avg10=0.50 avg60=0.10 avg300=0.00 total=1234".
func parsePressure(data []byte) *Pressure {
	var out Pressure
	for line := range bytes.Lines(data) {
		kind, rest, _ := strings.Cut(string(line), " ")
		switch kind {
		case "some":
			out.Some = parsePressureData(rest)
		case "full":
			out.Full = parsePressureData(rest)
		}
	}
	if out.Some == nil && out.Full == nil {
		return nil
	}
	return &out
}

func parsePressureData(line string) *PressureData {
	var out PressureData
	averages := map[string]*float64{"avg10": &out.Avg10, "avg60": &out.Avg60, "avg300": &out.Avg300}
	for _, field := range strings.Fields(line) {
		name, text, _ := strings.Cut(field, "=")
		if name == "total" {
			out.Total = parseNumber(text) * 1000 // microseconds
			continue
		}
		into, ok := averages[name]
		if !ok {
			continue
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			*into = n
		}
	}
	return &out
}
