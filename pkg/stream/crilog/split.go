package crilog

import "bytes"

// splitter cuts a byte stream into records' texts. It follows containerd: a line
// that is longer than max goes out in pieces of max bytes as soon as it is known to
// be longer, a carriage return before a line feed is dropped (terminals send both),
// and a last line without a line feed is a partial one.
//
// Joining the texts, with a line feed after each full one, gives the input with
// every "\r\n" turned into "\n".
type splitter struct {
	max  int
	line []byte // what is read of a line whose end, or whose next piece's end, is not known yet
}

type emitFunc func(tag byte, text []byte)

// feed takes the next bytes of the stream. emit must not keep text.
func (s *splitter) feed(p []byte, emit emitFunc) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.hold(p, emit)
			return
		}
		s.endLine(p[:i], emit)
		p = p[i+1:]
	}
}

// flush ends the stream, or its part that this process reads.
func (s *splitter) flush(emit emitFunc) {
	line := s.line
	for len(line) > s.max {
		emit(tagPartial, line[:s.max])
		line = line[s.max:]
	}
	if len(line) > 0 {
		emit(tagPartial, line)
	}
	s.line = s.line[:0]
}

func (s *splitter) endLine(rest []byte, emit emitFunc) {
	line := rest
	if len(s.line) > 0 {
		s.line = append(s.line, rest...)
		line = s.line
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	for len(line) > s.max {
		emit(tagPartial, line[:s.max])
		line = line[s.max:]
	}
	emit(tagFull, line)
	s.line = s.line[:0]
}

func (s *splitter) hold(p []byte, emit emitFunc) {
	s.line = append(s.line, p...)
	rest := s.line
	for textLen(rest) > s.max {
		emit(tagPartial, rest[:s.max])
		rest = rest[s.max:]
	}
	s.line = s.line[:copy(s.line, rest)]
}

// textLen is how many bytes of an unfinished line are text for certain: a trailing
// carriage return may belong to the line's end.
func textLen(line []byte) int {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return n - 1
	}
	return len(line)
}
