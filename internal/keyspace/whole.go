package keyspace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/glob"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
)

// wholes are the commands that read the whole keyspace. Outside of a transaction each shard is read in a view of its
// own, beside the shard's loop; within one, through the transaction, which sees what it wrote.
var wholes = map[string]func(*spread){"dbsize": dbsize, "keys": keys, "scan": scan, "randomkey": randomKey}

// spread is one such command at work.
type spread struct {
	s      *Session
	args   [][]byte
	w      *resp.Writer
	sink   Sink         // where w's bytes may be sent to before the command has ended; or nil
	within *transaction // or nil
	broken bool         // the reply is not whole: the connection cannot go on
}

// source is one shard's keys at one moment.
type source interface {
	scan(cursor uint64, count int, f func(key []byte, r engine.Record) bool) (next uint64, err error)
	keys(f func(key []byte, r engine.Record) bool) error
	count() (engine.KeyCount, error)
	random(r uint64) (key []byte, ok bool, err error)
	close()
}

type viewSource struct {
	*engine.View
	now int64
}

func (v viewSource) scan(cursor uint64, count int, f func([]byte, engine.Record) bool) (uint64, error) {
	return v.Scan(cursor, 0, engine.Slots, count, v.now, f)
}
func (v viewSource) keys(f func([]byte, engine.Record) bool) error { return v.Keys(v.now, f) }
func (v viewSource) count() (engine.KeyCount, error)               { return v.Count(v.now) }
func (v viewSource) random(r uint64) ([]byte, bool, error)         { return v.RandomKey(r, v.now) }
func (v viewSource) close()                                        { _ = v.Close() } // it was only read

type txSource struct{ *engine.Tx }

func (t txSource) scan(cursor uint64, count int, f func([]byte, engine.Record) bool) (uint64, error) {
	next := t.Scan(cursor, 0, engine.Slots, count, f)
	return next, t.Err()
}
func (t txSource) keys(f func([]byte, engine.Record) bool) error { t.Keys(f); return t.Err() }
func (t txSource) count() (engine.KeyCount, error)               { c := t.Count(); return c, t.Err() }
func (t txSource) random(r uint64) ([]byte, bool, error) {
	key, ok := t.RandomKey(r)
	return key, ok, t.Err()
}
func (t txSource) close() {}

// source opens the keys of a shard.
func (p *spread) source(id int) (source, error) {
	if p.within != nil {
		return txSource{p.within.grips[id].tx}, nil
	}
	return p.s.ks.view(p.s.on.shards[id])
}

// view opens a shard's keys as they are now, for readers.
func (k *Keyspace) view(on *shard.Shard) (source, error) {
	var v *engine.View
	err := on.Use(func(m shard.StateMachine) (err error) {
		v, err = m.(*engine.Engine).NewView()
		return err
	})
	if err != nil {
		return nil, err
	}
	return viewSource{v, k.opts.Now().UnixMilli()}, nil
}

func (p *spread) fail(id int, err error) { p.w.Error(readErrorText(id, err)) }

// Count counts the keys by going through all of them, shard by shard side by side.
func (k *Keyspace) Count() (engine.KeyCount, error) {
	var sources []source
	for id, on := range k.Shards() {
		src, err := k.view(on)
		if err != nil {
			return engine.KeyCount{}, fmt.Errorf("shard %d: %w", id, err)
		}
		defer src.close()
		sources = append(sources, src)
	}
	total, id, err := count(sources)
	if err != nil {
		err = fmt.Errorf("shard %d: %w", id, err)
	}
	return total, err
}

// dbsize counts the keys that a reader sees, by going through them.
func dbsize(p *spread) {
	sources := make([]source, len(p.s.on.shards))
	for id := range sources {
		var err error
		if sources[id], err = p.source(id); err != nil {
			p.fail(id, err)
			return
		}
		defer sources[id].close()
	}
	total, id, err := count(sources)
	if err != nil {
		p.fail(id, err)
		return
	}
	p.w.Int(total.Keys)
}

// count adds up the keys of the shards, side by side.
func count(sources []source) (total engine.KeyCount, failed int, err error) {
	counts := make([]engine.KeyCount, len(sources))
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for id, src := range sources {
		// Started here, one a shard; it owns its elements of the two slices, ends with its count, and is waited for below.
		wg.Go(func() { counts[id], errs[id] = src.count() })
	}
	wg.Wait()
	for id, c := range counts {
		if errs[id] != nil {
			return total, id, errs[id]
		}
		total.Keys += c.Keys
		total.Deadlines += c.Deadlines
		total.Expired += c.Expired
	}
	return total, 0, nil
}

// keys replies all keys that match. It goes through them twice, to announce their number first: then it need not hold
// them all.
func keys(p *spread) {
	pattern := p.args[1]
	every := string(pattern) == "*"
	n := 0
	sources := make([]source, len(p.s.on.shards))
	for id := range sources {
		var err error
		if sources[id], err = p.source(id); err == nil {
			defer sources[id].close()
			err = sources[id].keys(func(key []byte, _ engine.Record) bool {
				if every || glob.Match(pattern, key, false) {
					n++
				}
				return true
			})
		}
		if err != nil {
			p.fail(id, err)
			return
		}
	}
	p.w.Array(n)
	for _, src := range sources {
		err := src.keys(func(key []byte, _ engine.Record) bool {
			if every || glob.Match(pattern, key, false) {
				p.w.Bulk(key)
				n--
			}
			return p.room()
		})
		if err != nil {
			break
		}
	}
	if n != 0 {
		p.broken = true
	}
}

// room reports whether the reply may go on, after sending what there is if that is much.
func (p *spread) room() bool {
	if p.sink == nil {
		return len(p.w.Buf) <= maxReply
	}
	if len(p.w.Buf) < p.s.ks.opts.ReplyBytes {
		return true
	}
	return p.sink.Flush() == nil
}

// scan is SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]. Cursors are places in the order of (slot, hash), which the
// shards divide in ranges: no state is kept, and a cursor survives a change of their number.
func scan(p *spread) {
	cursor, ok := parseCursor(p.args[1])
	if !ok {
		p.w.Error(errCursor)
		return
	}
	o, text := scanOptions(p.args[2:])
	if text != "" {
		p.w.Error(text)
		return
	}
	found := resp.Writer{Proto: p.w.Proto}
	n, seen := 0, 0
	shards := len(p.s.on.shards)
	slot, inside := engine.CursorSlot(cursor)
	if !inside {
		shards, cursor = 0, 0
	}
	for id := engine.ShardOf(slot, max(shards, 1)); id < shards; id++ {
		src, err := p.source(id)
		if err != nil {
			p.fail(id, err)
			return
		}
		cursor, err = src.scan(cursor, o.count-seen, func(key []byte, r engine.Record) bool {
			seen++
			if o.matches(key, r) {
				found.Bulk(key)
				n++
			}
			return len(found.Buf) < maxReply
		})
		src.close()
		if err != nil {
			p.fail(id, err)
			return
		}
		if cursor == 0 && id+1 < shards {
			next, _ := engine.SlotRange(id+1, shards)
			cursor = engine.Cursor(uint16(next), 0)
		}
		if seen >= o.count || len(found.Buf) >= maxReply {
			break
		}
	}
	p.w.Array(2)
	p.w.BulkString(strconv.FormatUint(cursor, 10))
	p.w.Array(n)
	p.w.Buf = append(p.w.Buf, found.Buf...)
}

// parseCursor reads a cursor as Redis does, with strtoul: a sign is taken, a blank before it is not.
func parseCursor(b []byte) (uint64, bool) {
	digits := bytes.TrimPrefix(b, []byte("-"))
	negative := len(digits) < len(b)
	if !negative {
		digits = bytes.TrimPrefix(b, []byte("+"))
	}
	if len(digits) == 0 {
		return 0, len(b) == 0
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || digits[0] == '+' {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

type scanOption struct {
	pattern []byte // nil: every key
	kind    string // "": every type
	count   int
}

func (o *scanOption) matches(key []byte, r engine.Record) bool {
	return (o.kind == "" || o.kind == r.Type.String()) && (o.pattern == nil || glob.Match(o.pattern, key, false))
}

func scanOptions(args [][]byte) (o scanOption, text string) {
	o.count = 10
	for ; len(args) > 0; args = args[2:] {
		if len(args) == 1 {
			return o, errSyntax
		}
		switch {
		case fold(args[0], "count"):
			n, ok := resp.ParseInt(args[1])
			if !ok {
				return o, errNotInteger
			}
			if n < 1 {
				return o, errSyntax
			}
			o.count = int(n)
		case fold(args[0], "match"):
			o.pattern = args[1]
			if string(o.pattern) == "*" {
				o.pattern = nil
			}
		case fold(args[0], "type"):
			o.kind = strings.ToLower(string(args[1]))
		default:
			return o, errSyntax
		}
	}
	return o, ""
}

// randomKey takes a key from the shard that a random slot belongs to, or from the next one that has any.
func randomKey(p *spread) {
	shards := len(p.s.on.shards)
	first := engine.ShardOf(uint16(rand.IntN(engine.Slots)), shards)
	for i := range shards {
		id := (first + i) % shards
		src, err := p.source(id)
		if err != nil {
			p.fail(id, err)
			return
		}
		key, ok, err := src.random(rand.Uint64())
		src.close()
		if err != nil {
			p.fail(id, err)
			return
		}
		if ok {
			p.w.Bulk(key)
			return
		}
	}
	p.w.Null()
}
