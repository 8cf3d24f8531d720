package resp

import (
	"bytes"
	"errors"
	"io"
)

// Limits of a request. They bound what one client can make a server hold.
const (
	// MaxArgs is the largest number of arguments of one command. Redis takes up to 2^31-1.
	MaxArgs = 1024 * 1024
	// MaxBulk is the largest argument, in bytes: Redis's proto-max-bulk-len.
	MaxBulk = 512 << 20
	// MaxLine is how far the parser looks for the end of a line: Redis's PROTO_INLINE_MAX_SIZE.
	MaxLine = 64 << 10
	// MaxCommand is the largest whole command, in bytes: Redis's client-query-buffer-limit.
	MaxCommand = 1 << 30
)

const (
	startBuffer = 16 << 10  // what a new connection gets
	pipeBuffer  = 64 << 10  // what a connection that fills its buffer gets: one read then takes a whole pipeline
	keepBuffer  = 256 << 10 // a larger buffer is given back once it is empty
	keepArgs    = 16 << 10  // so is a longer arena of arguments
)

// ErrShort means that the bytes so far are the beginning of a command and more are needed.
var ErrShort = errors.New("resp: need more bytes")

// ProtocolError is a request that can never become a command. Its text is what the client is told, behind "-ERR ",
// before the connection is closed.
type ProtocolError struct{ Text string }

func (e *ProtocolError) Error() string { return e.Text }

func protocolError(text string) error { return &ProtocolError{Text: "Protocol error: " + text} }

// span is an argument of an unfinished command, as offsets from the command's first byte: the buffer may still move.
type span struct{ from, to uint32 }

// Parser takes commands from a stream of bytes. It owns the connection's read buffer. The zero value is ready. It is not
// safe for concurrent use.
//
// Invariants: 0 <= start <= at <= len(buf); buf[start:at] is the parsed part of the unfinished command; spans and left
// describe that command and are empty and zero between commands.
type Parser struct {
	buf   []byte
	start int // first byte of the unfinished command
	at    int // first byte that was not parsed
	left  int // bulks that the unfinished command still lacks; 0 between commands
	bulk  int // length of the bulk at `at`, or -1 when its header was not parsed
	spans []span
	args  [][]byte // the arena of argument slices handed out since the last Fill
	err   error    // the hard error that ended the stream
}

// Fill reads once from r into the free part of the buffer, making room first. It invalidates every argument that
// Next returned before. It returns r's error, and io.ErrNoProgress never: an empty read is the reader's affair.
func (p *Parser) Fill(r io.Reader) (int, error) {
	p.makeRoom(0)
	n, err := r.Read(p.buf[len(p.buf):cap(p.buf)])
	p.buf = p.buf[:len(p.buf)+n]
	return n, err
}

// Feed is Fill with bytes at hand, which are copied.
func (p *Parser) Feed(b []byte) {
	p.makeRoom(len(b))
	p.buf = append(p.buf, b...)
}

// Buffered is the number of bytes that were read and not yet returned as part of a command.
func (p *Parser) Buffered() int { return len(p.buf) - p.start }

// Memory is what the parser holds, in bytes.
func (p *Parser) Memory() int { return cap(p.buf) + 24*cap(p.args) + 8*cap(p.spans) }

// makeRoom moves the unfinished command to the front and makes the buffer large enough for need more bytes, or for a
// useful read if need is 0. A buffer at least three quarters full is doubled, whatever length the client announced.
func (p *Parser) makeRoom(need int) {
	clear(p.args)
	p.args = p.args[:0]
	if cap(p.args) > keepArgs {
		p.args = nil
	}
	held := len(p.buf) - p.start
	wasFull := cap(p.buf) > 0 && len(p.buf) == cap(p.buf)
	size := max(cap(p.buf), startBuffer)
	switch {
	case held+need > size:
		size = max(2*size, held+need)
	case need == 0 && held > size-size/4:
		size *= 2
		if p.left > 0 && p.bulk > 0 { // the rest of this bulk, and a little for what follows it
			size = max(held+startBuffer, min(size, p.at-p.start+p.bulk+2+startBuffer))
		}
	case held == 0 && size > keepBuffer:
		size = startBuffer
	case wasFull && size < pipeBuffer:
		size = pipeBuffer
	}
	if size != cap(p.buf) {
		moved := make([]byte, held, size)
		copy(moved, p.buf[p.start:])
		p.buf = moved
	} else if p.start > 0 {
		copy(p.buf, p.buf[p.start:])
		p.buf = p.buf[:held]
	}
	p.at -= p.start
	p.start = 0
}

// Next returns the arguments of the next command, never empty. They are slices of the parser's buffer with no spare
// capacity, valid until the next Fill. It returns ErrShort when the buffered bytes end before the command does, and a
// *ProtocolError, for ever, when they can never become one.
func (p *Parser) Next() ([][]byte, error) {
	for p.err == nil {
		if p.left == 0 {
			p.start = p.at
			if p.at == len(p.buf) {
				return nil, ErrShort
			}
			if p.buf[p.at] != '*' {
				args, err := p.inline()
				if err == nil && len(args) == 0 {
					continue
				}
				return args, p.keep(err)
			}
			if err := p.count(); err != nil {
				return nil, p.keep(err)
			}
			if p.left == 0 {
				continue // "*0" and "*-1" are no commands
			}
		}
		if err := p.bulks(); err != nil {
			return nil, p.keep(err)
		}
		return p.take(), nil
	}
	return nil, p.err
}

func (p *Parser) keep(err error) error {
	if err != nil && err != ErrShort {
		p.err = err
	}
	return err
}

// count parses "*<number of bulks>\r\n".
func (p *Parser) count() error {
	n, err := p.line("too big mbulk count string")
	if err != nil {
		return err
	}
	count, ok := ParseInt(p.buf[p.at+1 : p.at+n])
	if !ok || count > MaxArgs {
		return protocolError("invalid multibulk length")
	}
	p.at += n + 2
	p.left, p.bulk = int(max(count, 0)), -1
	return nil
}

// line finds the length of the line at `at`, without its end. As in Redis, the line ends at the first carriage return
// and whatever byte follows it.
func (p *Parser) line(tooBig string) (int, error) {
	rest := p.buf[p.at:]
	n := bytes.IndexByte(rest[:min(len(rest), MaxLine+1)], '\r')
	if n < 0 {
		if len(rest) > MaxLine {
			return 0, protocolError(tooBig)
		}
		return 0, ErrShort
	}
	if n+2 > len(rest) {
		return 0, ErrShort
	}
	return n, nil
}

// bulks parses "$<length>\r\n<bytes>\r\n" for each argument that is left.
func (p *Parser) bulks() error {
	for p.left > 0 {
		if p.bulk < 0 {
			n, err := p.line("too big bulk count string")
			if err != nil {
				return err
			}
			if c := p.buf[p.at]; c != '$' {
				return protocolError("expected '$', got '" + string([]byte{printable(c)}) + "'")
			}
			size, ok := ParseInt(p.buf[p.at+1 : p.at+n])
			if !ok || size < 0 || size > MaxBulk {
				return protocolError("invalid bulk length")
			}
			p.at += n + 2
			p.bulk = int(size)
			if p.at-p.start+p.bulk > MaxCommand {
				return protocolError("command exceeds the query buffer limit")
			}
		}
		if len(p.buf)-p.at < p.bulk+2 {
			return ErrShort
		}
		from := p.at - p.start
		p.spans = append(p.spans, span{uint32(from), uint32(from + p.bulk)})
		p.at += p.bulk + 2
		p.bulk = -1
		p.left--
	}
	return nil
}

// take turns the finished command's spans into slices.
func (p *Parser) take() [][]byte {
	first := len(p.args)
	for _, s := range p.spans {
		from, to := p.start+int(s.from), p.start+int(s.to)
		p.args = append(p.args, p.buf[from:to:to])
	}
	p.spans = p.spans[:0]
	if cap(p.spans) > keepArgs {
		p.spans = nil
	}
	p.start = p.at
	return p.args[first:len(p.args):len(p.args)]
}
