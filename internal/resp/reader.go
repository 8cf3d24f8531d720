package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MaxDepth is how deep replies may nest before [Reader] refuses them.
const MaxDepth = 32

// Value is a decoded reply.
type Value struct {
	// Kind is the type's byte on the wire: + - : $ * _ , # ! = ( % ~ >. A RESP2 null has kind '_', like RESP3's.
	Kind byte
	// Str holds the text of simple strings, errors, bulks, big numbers and verbatim strings (without "txt:").
	Str string
	// Int holds integers, and 1 or 0 for a truth value.
	Int int64
	// Float holds doubles.
	Float float64
	// Elems holds the elements of arrays, sets and pushes, and the keys and values of maps by turns.
	Elems []Value
}

// IsNull reports whether v is the absent value.
func (v Value) IsNull() bool { return v.Kind == '_' }

// Err returns v as an error if v is an error reply.
func (v Value) Err() error {
	if v.Kind == '-' || v.Kind == '!' {
		return ReplyError(v.Str)
	}
	return nil
}

// Get returns the value under key in a map, or in RESP2's flat array of pairs.
func (v Value) Get(key string) (Value, bool) {
	for i := 0; i+1 < len(v.Elems); i += 2 {
		if v.Elems[i].Str == key {
			return v.Elems[i+1], true
		}
	}
	return Value{}, false
}

// ReplyError is an error that the server replied: "ERR no such key".
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// ErrReply means that the server's bytes are no reply. The connection cannot be used further.
var ErrReply = errors.New("resp: malformed reply")

// Reader decodes replies, RESP2 and RESP3. It never allocates from a length that was only claimed, beyond 64 KiB. It is
// not safe for concurrent use.
type Reader struct {
	br      *bufio.Reader
	raw     []byte
	keepRaw bool
}

// NewReader reads replies from r.
func NewReader(r io.Reader) *Reader { return &Reader{br: bufio.NewReaderSize(r, 16<<10)} }

// Read decodes one reply. An error reply is a Value, not an error: see [Value.Err]. It returns the stream's errors,
// io.ErrUnexpectedEOF for an end within a reply, and ErrReply.
func (r *Reader) Read() (Value, error) {
	if _, err := r.br.Peek(1); err != nil {
		return Value{}, err
	}
	v, err := r.value(0)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

// ReadRaw is Read that also returns the reply's bytes, valid until the next call.
func (r *Reader) ReadRaw() (raw []byte, v Value, err error) {
	r.raw, r.keepRaw = r.raw[:0], true
	v, err = r.Read()
	r.keepRaw = false
	return r.raw, v, err
}

func (r *Reader) line() (string, error) {
	var line []byte
	for {
		part, err := r.br.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull || len(line) > MaxBulk {
			return "", err
		}
	}
	if r.keepRaw {
		r.raw = append(r.raw, line...)
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return "", fmt.Errorf("%w: line %.40q", ErrReply, line)
	}
	return string(line[:len(line)-2]), nil
}

func (r *Reader) value(depth int) (Value, error) {
	if depth > MaxDepth {
		return Value{}, fmt.Errorf("%w: nested deeper than %d", ErrReply, MaxDepth)
	}
	line, err := r.line()
	if err != nil {
		return Value{}, err
	}
	v, text := Value{Kind: line[0]}, line[1:]
	switch v.Kind {
	case '+', '-', '(':
		v.Str = text
		return v, nil
	case '_':
		return v, nil
	case '#':
		if text != "t" && text != "f" {
			return v, fmt.Errorf("%w: truth value %q", ErrReply, text)
		}
		if text == "t" {
			v.Int = 1
		}
		return v, nil
	case ',':
		if v.Float, err = strconv.ParseFloat(text, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
			return v, fmt.Errorf("%w: double %q", ErrReply, text)
		}
		return v, nil
	case ':', '$', '*', '!', '=', '%', '~', '>', '|':
	default:
		return v, fmt.Errorf("%w: type %q", ErrReply, v.Kind)
	}
	n, ok := ParseInt([]byte(text))
	if !ok {
		return v, fmt.Errorf("%w: number %q", ErrReply, text)
	}
	switch v.Kind {
	case ':':
		v.Int = n
		return v, nil
	case '$', '!', '=':
		return r.bulk(v, n)
	case '|': // attributes decorate the reply that follows; nothing here reads them
		if _, err := r.elems(2*n, depth); err != nil {
			return v, err
		}
		return r.value(depth + 1)
	case '%':
		n *= 2
	}
	if n == -1 && v.Kind == '*' {
		return Value{Kind: '_'}, nil
	}
	v.Elems, err = r.elems(n, depth)
	return v, err
}

func (r *Reader) elems(n int64, depth int) ([]Value, error) {
	if n < 0 {
		return nil, fmt.Errorf("%w: %d elements", ErrReply, n)
	}
	elems := make([]Value, 0, min(n, 64))
	for range n {
		e, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		elems = append(elems, e)
	}
	return elems, nil
}

func (r *Reader) bulk(v Value, n int64) (Value, error) {
	if n == -1 && v.Kind == '$' {
		return Value{Kind: '_'}, nil
	}
	if n < 0 || n > MaxBulk {
		return v, fmt.Errorf("%w: a bulk of %d bytes", ErrReply, n)
	}
	want := int(n) + 2
	body := make([]byte, 0, min(want, 64<<10))
	for len(body) < want {
		if len(body) == cap(body) {
			body = append(make([]byte, 0, min(want, 2*cap(body))), body...)
		}
		got, err := io.ReadFull(r.br, body[len(body):cap(body)])
		body = body[:len(body)+got]
		if err != nil {
			return v, err
		}
	}
	if r.keepRaw {
		r.raw = append(r.raw, body...)
	}
	if body[n] != '\r' || body[n+1] != '\n' {
		return v, fmt.Errorf("%w: a bulk that does not end where it says", ErrReply)
	}
	v.Str = string(body[:n])
	if v.Kind == '=' {
		if len(v.Str) < 4 || v.Str[3] != ':' {
			return v, fmt.Errorf("%w: verbatim string without its format", ErrReply)
		}
		v.Str = v.Str[4:]
	}
	return v, nil
}

// AppendCommand appends a command in the form that every server reads: an array of bulks.
func AppendCommand[T ~string | ~[]byte](dst []byte, args ...T) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	dst = append(dst, '\r', '\n')
	for _, a := range args {
		dst = append(dst, '$')
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, '\r', '\n')
		dst = append(dst, a...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}
