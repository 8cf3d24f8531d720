package command

import (
	"math"
	"strconv"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

func incr(c *Ctx) { addInt(c, 1) }
func decr(c *Ctx) { addInt(c, -1) }

func incrBy(c *Ctx) {
	if n, ok := resp.ParseInt(c.Args[2]); ok {
		addInt(c, n)
		return
	}
	c.Out.Error(errNotInteger)
}

func decrBy(c *Ctx) {
	n, ok := resp.ParseInt(c.Args[2])
	switch {
	case !ok:
		c.Out.Error(errNotInteger)
	case n == math.MinInt64:
		c.Out.Error(errDecrOverflow)
	default:
		addInt(c, -n)
	}
}

// addInt adds to the integer that the key holds, 0 if it is absent. Its deadline stays.
func addInt(c *Ctx, delta int64) {
	key := c.Args[1]
	tx := c.Tx(key)
	r, found, ok := c.lookup(tx, key)
	if !ok {
		return
	}
	var n int64
	if found {
		if n, ok = resp.ParseInt(r.Value); !ok {
			c.Out.Error(errNotInteger)
			return
		}
	}
	if delta < 0 && n < math.MinInt64-delta || delta > 0 && n > math.MaxInt64-delta {
		c.Out.Error(errOverflow)
		return
	}
	n += delta
	c.scratch = strconv.AppendInt(c.scratch[:0], n, 10)
	tx.Set(key, engine.Record{Type: engine.TypeString, Deadline: r.Deadline, Value: c.scratch})
	c.Out.Int(n)
}

// incrByFloat adds as Redis does, in 80-bit floating point, and stores the decimal text: the effect, so that nobody
// repeats the addition. Its deadline stays (pitfall 23).
func incrByFloat(c *Ctx) {
	key := c.Args[1]
	tx := c.Tx(key)
	r, found, ok := c.lookup(tx, key)
	if !ok {
		return
	}
	old, delta := zero, zero
	if found {
		old, ok = parseLongDouble(r.Value)
	}
	if ok {
		delta, ok = parseLongDouble(c.Args[2])
	}
	if !ok {
		c.Out.Error(errNotFloat)
		return
	}
	sum, ok := addLongDouble(old, delta)
	if !ok {
		c.Out.Error(errNaN)
		return
	}
	value := appendLongDouble(c.scratch[:0], sum)
	c.scratch = value
	tx.Set(key, engine.Record{Type: engine.TypeString, Deadline: r.Deadline, Value: value})
	c.Out.Bulk(value)
}
