package loadgen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// counter counts the replies in a stream of RESP2 that arrives in pieces. It knows simple strings, integers, bulk strings
// and errors: what SET and GET answer.
type counter struct {
	body   int64  // bytes of a bulk string, its line end included, that have not come yet
	line   []byte // a first line that has not come whole
	misses int64  // bulk strings that were nil
}

// errReply is in the chain of errors that a server answered with.
var errReply = errors.New("the server answered an error")

// maxLine is more than the first line of any reply has.
const maxLine = 4096

var okLine = binary.LittleEndian.Uint32([]byte("+OK\r"))

// count takes in the next bytes of the stream and returns how many replies ended in them.
func (c *counter) count(b []byte) (n int, err error) {
	for len(b) > 0 {
		if c.body > 0 {
			skip := min(c.body, int64(len(b)))
			c.body -= skip
			b = b[skip:]
			if c.body == 0 {
				n++
			}
			continue
		}
		if len(c.line) == 0 && len(b) >= 5 && binary.LittleEndian.Uint32(b) == okLine && b[4] == '\n' {
			n++
			b = b[5:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			c.line = append(c.line, b...)
			if len(c.line) > maxLine {
				return n, fmt.Errorf("a reply's first line is longer than %d bytes: %.40q", maxLine, c.line)
			}
			return n, nil
		}
		line := b[:end+1]
		if len(c.line) > 0 {
			c.line = append(c.line, line...)
			line = c.line
		}
		b = b[end+1:]
		whole, err := c.first(line)
		c.line = c.line[:0]
		if err != nil {
			return n, err
		}
		if whole {
			n++
		}
	}
	return n, nil
}

// first takes a reply's first line and reports whether it is the whole of it.
func (c *counter) first(line []byte) (whole bool, err error) {
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return false, fmt.Errorf("no RESP reply: %.40q", line)
	}
	text := line[1 : len(line)-2]
	switch line[0] {
	case '+', ':':
		return true, nil
	case '-':
		return false, fmt.Errorf("%w: %s", errReply, text)
	case '$':
		if string(text) == "-1" {
			c.misses++
			return true, nil
		}
		size := int64(0)
		for _, d := range text {
			if d < '0' || d > '9' || size > 1<<30 {
				return false, fmt.Errorf("no RESP reply: a bulk string of %s bytes", strconv.Quote(string(text)))
			}
			size = size*10 + int64(d-'0')
		}
		c.body = size + 2
		return false, nil
	}
	return false, fmt.Errorf("no RESP reply to SET or GET: %.40q", line)
}
