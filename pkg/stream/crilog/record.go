// Package crilog writes the log files of containers in the format that CRI fixes
// and kubelet reads:
//
//	<RFC 3339 time with nanoseconds> <stdout|stderr> <P|F> <text>\n
//
// F ends a line of the container, P is a piece of a line that goes on in the next
// record of the same stream.
//
// The package does not read from containers, rotate or delete files (kubelet
// renames a file, then asks for Reopen), or limit their size.
package crilog

import "time"

// Stream is the name of an output stream in a record.
type Stream string

// The streams of a container. A terminal has Stdout only.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

const (
	tagFull    = 'F'
	tagPartial = 'P'
)

func appendRecord(dst []byte, at time.Time, stream Stream, tag byte, text []byte) []byte {
	dst = at.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, ' ')
	dst = append(dst, stream...)
	dst = append(dst, ' ', tag, ' ')
	dst = append(dst, text...)
	return append(dst, '\n')
}
