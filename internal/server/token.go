package server

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/understudy-kv/understudy/internal/store"
	"github.com/understudy-kv/understudy/wire"
)

// A token names a moment of the whole keyspace: a position of every shard. A client takes one from the node that it has
// written to, with REPL.TOKEN, and hands it to another node, with REPL.WAITFOR, before it reads there.
//
//	token = base64url, without padding, of
//	  version:1          1
//	  count:2            shards, little-endian
//	  count * position   generation:16 offset:8, as on the wire; all zero asks nothing of that shard
//
// Positions belong to generations, so a token of writes that were lost in a change of primaries is refused: an offset alone
// would be reached by other writes (pitfall 2).
const (
	tokenVersion = 1
	tokenHeader  = 3
)

var errToken = errors.New("this is no token of REPL.TOKEN")

// appendToken encodes positions.
func appendToken(dst []byte, at []wire.Position) []byte {
	b := append(make([]byte, 0, tokenHeader+len(at)*wire.PositionSize), tokenVersion, byte(len(at)), byte(len(at)>>8))
	for _, p := range at {
		b = wire.AppendPosition(b, p)
	}
	return base64.RawURLEncoding.AppendEncode(dst, b)
}

// parseToken reads what appendToken wrote.
func parseToken(text []byte) ([]wire.Position, error) {
	const most = tokenHeader + store.MaxShards*wire.PositionSize
	if len(text) > base64.RawURLEncoding.EncodedLen(most) {
		return nil, fmt.Errorf("%w: it is too long", errToken)
	}
	b, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if i := bytes.IndexAny(text, "\r\n"); i >= 0 { // which the decoder passes over
		err = base64.CorruptInputError(i)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errToken, err)
	case len(b) < tokenHeader:
		return nil, fmt.Errorf("%w: it is too short", errToken)
	case b[0] != tokenVersion:
		return nil, fmt.Errorf("a token of version %d: this node knows version %d", b[0], tokenVersion)
	}
	n := int(b[1]) | int(b[2])<<8
	if b = b[tokenHeader:]; n == 0 || len(b) != n*wire.PositionSize {
		return nil, fmt.Errorf("%w: it is cut off, or of more than one token", errToken)
	}
	at := make([]wire.Position, n)
	for i := range at {
		if at[i], err = wire.ParsePosition(b[i*wire.PositionSize : (i+1)*wire.PositionSize]); err != nil {
			return nil, fmt.Errorf("%w: %w", errToken, err)
		}
	}
	return at, nil
}

// verdict is what a shard has to say to a position of a token.
type verdict uint8

const (
	reached verdict = iota // readers see it
	notYet                 // it may come
	lost                   // it will not: that write is no part of this history
)

// judgeToken compares a token's position with a shard that has applied everything before offset on the lineage. A
// generation that is not on the lineage may be one that this node has yet to hear of, so it is waited for.
func judgeToken(want wire.Position, l wire.Lineage, applied uint64) verdict {
	if want.IsZero() {
		return reached
	}
	for i, e := range l {
		if e.Generation != want.Generation {
			continue
		}
		if i+1 < len(l) && want.Offset > l[i+1].First || want.Offset < e.First {
			return lost
		}
		if applied >= want.Offset {
			return reached
		}
		return notYet
	}
	return notYet
}
