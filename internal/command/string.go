package command

import (
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// lookup gets the key's record for a command on strings. If the key holds another type, it replies with the error and
// ok is false; an absent key is a zero Record.
func (c *Ctx) lookup(src Source, key []byte) (r engine.Record, found, ok bool) {
	r, found = src.Get(key)
	if found && r.Type != engine.TypeString {
		c.Out.Error(errWrongType)
		return r, true, false
	}
	return r, found, true
}

// readString is lookup for a reader.
func (c *Ctx) readString(src Source, key []byte) (r engine.Record, found, ok bool) {
	r, found, ok = c.lookup(src, key)
	c.count(found)
	return r, found, ok
}

// replyValue answers a lookup: the value, or null.
func (c *Ctx) replyValue(r engine.Record, found bool) {
	if found {
		c.Out.Bulk(r.Value)
		return
	}
	c.Out.Null()
}

func get(c *Ctx) {
	key := c.Args[1]
	if r, found, ok := c.readString(c.source(key), key); ok {
		c.replyValue(r, found)
	}
}

func mget(c *Ctx) {
	begun := len(c.Out.Buf)
	c.Out.Array(len(c.Args) - 1)
	for _, key := range c.Args[1:] {
		r, found := c.read(key)
		if found && len(c.Out.Buf)-begun+len(r.Value) > MaxReply {
			c.Out.Buf = c.Out.Buf[:begun]
			c.Out.Error(ErrReplyTooLarge)
			return
		}
		c.replyValue(r, found && r.Type == engine.TypeString)
	}
}

func strlen(c *Ctx) {
	key := c.Args[1]
	if r, _, ok := c.readString(c.source(key), key); ok {
		c.Out.Int(int64(len(r.Value)))
	}
}

func getSet(c *Ctx) {
	key := c.Args[1]
	tx := c.Tx(key)
	r, found, ok := c.readString(tx, key)
	if !ok {
		return
	}
	c.replyValue(r, found)
	tx.Set(key, engine.Record{Type: engine.TypeString, Value: c.Args[2]})
}

func getDel(c *Ctx) {
	key := c.Args[1]
	tx := c.Tx(key)
	r, found, ok := c.readString(tx, key)
	if !ok {
		return
	}
	c.replyValue(r, found)
	if found {
		tx.Delete(key)
	}
}

func getEx(c *Ctx) {
	key := c.Args[1]
	o, ok := parseSetOptions(c.Args[2:], true)
	if !ok {
		c.Out.Error(errSyntax)
		return
	}
	tx := c.Tx(key)
	r, found, ok := c.readString(tx, key)
	if !ok {
		return
	}
	var at int64
	if found && o.time != nil {
		var text string
		if at, text = c.deadline(tx, o.time, o.unit, o.absolute); text != "" {
			c.Out.Error(text)
			return
		}
	}
	c.replyValue(r, found)
	switch {
	case !found:
	case o.time != nil && o.absolute && at <= tx.Now():
		tx.Delete(key)
	case o.time != nil, o.persist && r.Deadline != 0:
		tx.Set(key, engine.Record{Type: r.Type, Deadline: at, Value: r.Value})
	}
}

// getRange is GETRANGE, and SUBSTR, its old name.
func getRange(c *Ctx) {
	key := c.Args[1]
	start, ok1 := resp.ParseInt(c.Args[2])
	end, ok2 := resp.ParseInt(c.Args[3])
	if !ok1 || !ok2 {
		c.Out.Error(errNotInteger)
		return
	}
	r, _, ok := c.readString(c.source(key), key)
	if !ok {
		return
	}
	from, to := clampRange(start, end, int64(len(r.Value)))
	c.Out.Bulk(r.Value[from:to])
}

// clampRange turns Redis's inclusive range, with negative indexes counted from the end, into [from, to) within n bytes.
func clampRange(start, end, n int64) (from, to int64) {
	if start < 0 && end < 0 && start > end {
		return 0, 0
	}
	if start < 0 {
		start = max(start+n, 0)
	}
	if end < 0 {
		end = max(end+n, 0)
	}
	end = min(end, n-1)
	if start > end {
		return 0, 0
	}
	return start, end + 1
}

func appendTo(c *Ctx) {
	key, tail := c.Args[1], c.Args[2]
	tx := c.Tx(key)
	r, _, ok := c.lookup(tx, key)
	if !ok {
		return
	}
	n := len(r.Value) + len(tail)
	if n > MaxValue {
		c.Out.Error(errTooLong)
		return
	}
	tx.Set(key, engine.Record{Type: engine.TypeString, Deadline: r.Deadline, Value: c.concat(r.Value, tail)})
	c.Out.Int(int64(n))
}

func setRange(c *Ctx) {
	key, piece := c.Args[1], c.Args[3]
	offset, ok := resp.ParseInt(c.Args[2])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	if offset < 0 {
		c.Out.Error(errOffset)
		return
	}
	tx := c.Tx(key)
	r, _, ok := c.lookup(tx, key)
	if !ok {
		return
	}
	if len(piece) == 0 {
		c.Out.Int(int64(len(r.Value)))
		return
	}
	if offset > MaxValue || offset+int64(len(piece)) > MaxValue {
		c.Out.Error(errTooLong)
		return
	}
	value := c.concat(r.Value)
	if gap := int(offset) - len(value); gap > 0 {
		value = append(value, make([]byte, gap)...)
	}
	value = append(value[:offset], piece...)
	if len(value) < len(r.Value) {
		value = value[:len(r.Value)] // what lay behind the piece is still there
	}
	c.scratch = value
	tx.Set(key, engine.Record{Type: engine.TypeString, Deadline: r.Deadline, Value: value})
	c.Out.Int(int64(len(value)))
}
