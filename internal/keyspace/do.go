package keyspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/understudy-kv/understudy/internal/resp"
)

// Do executes one command for an embedding program. Arguments are strings, byte slices, integers, floats and truth
// values. The reply is nil, a string, an int64, a float64, a bool, or a []any of replies; an error reply is a
// [resp.ReplyError], returned as the error at the top level and as an element within an array. Connection commands and
// transactions need a [Session]. ctx is looked at before the command runs, and while a write is held (HoldWrites): one
// that runs is waited for, since it happens in any case.
func (k *Keyspace) Do(ctx context.Context, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, errors.New("keyspace: a command without a name")
	}
	argv := make([][]byte, len(args))
	for i, a := range args {
		b, err := argument(a)
		if err != nil {
			return nil, err
		}
		argv[i] = b
	}
	s := k.NewSession(nil)
	defer s.Close()
	s.Proto = 3
	s.hold = holdUntil(ctx)
	var sink memorySink
	if _, err := s.Exec([][][]byte{argv}, &sink); err != nil {
		return nil, err
	}
	v, err := resp.NewReader(bytes.NewReader(sink.w.Buf)).Read()
	if err != nil {
		return nil, err
	}
	return plain(v), v.Err()
}

func argument(a any) ([]byte, error) {
	switch a := a.(type) {
	case string:
		return []byte(a), nil
	case []byte:
		return a, nil
	case int:
		return strconv.AppendInt(nil, int64(a), 10), nil
	case int64:
		return strconv.AppendInt(nil, a, 10), nil
	case uint64:
		return strconv.AppendUint(nil, a, 10), nil
	case float64:
		return strconv.AppendFloat(nil, a, 'g', -1, 64), nil
	case bool:
		if a {
			return []byte("1"), nil
		}
		return []byte("0"), nil
	}
	return nil, fmt.Errorf("keyspace: an argument of type %T: use a string, bytes, a number or a truth value", a)
}

func plain(v resp.Value) any {
	switch v.Kind {
	case '_', '-', '!':
		if err := v.Err(); err != nil {
			return err
		}
		return nil
	case ':':
		return v.Int
	case ',':
		return v.Float
	case '#':
		return v.Int == 1
	case '*', '~', '>', '%':
		elems := make([]any, len(v.Elems))
		for i, e := range v.Elems {
			elems[i] = plain(e)
		}
		return elems
	}
	return v.Str
}

// memorySink keeps replies.
type memorySink struct{ w resp.Writer }

func (m *memorySink) Writer() *resp.Writer { return &m.w }
func (m *memorySink) Flush() error         { return nil }
func (m *memorySink) Send(b []byte) error  { m.w.Buf = append(m.w.Buf, b...); return nil }
