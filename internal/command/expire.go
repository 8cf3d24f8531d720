package command

import (
	"math"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

func expire(c *Ctx)    { setDeadline(c, seconds, false) }
func pexpire(c *Ctx)   { setDeadline(c, millis, false) }
func expireAt(c *Ctx)  { setDeadline(c, seconds, true) }
func pexpireAt(c *Ctx) { setDeadline(c, millis, true) }

// expireOptions are the conditions behind EXPIRE's time.
type expireOptions struct{ nx, xx, gt, lt bool }

func parseExpireOptions(args [][]byte) (o expireOptions, text string) {
	for _, a := range args {
		switch {
		case is(a, "nx"):
			o.nx = true
		case is(a, "xx"):
			o.xx = true
		case is(a, "gt"):
			o.gt = true
		case is(a, "lt"):
			o.lt = true
		default:
			return o, "ERR Unsupported option " + string(preview(a, len(a)))
		}
	}
	switch {
	case o.nx && (o.xx || o.gt || o.lt):
		return o, errNXAndOthers
	case o.gt && o.lt:
		return o, errGTAndLT
	}
	return o, ""
}

// allow reports whether the conditions let a deadline of now (0: none) become next. To GT and LT, no deadline is the
// farthest one.
func (o expireOptions) allow(now, next int64) bool {
	switch {
	case o.nx && now != 0, o.xx && now == 0:
		return false
	case o.gt && (now == 0 || next <= now), o.lt && now != 0 && next >= now:
		return false
	}
	return true
}

// expireDeadline turns EXPIRE's time, which may be negative, into milliseconds since 1970.
func expireDeadline(n int64, unit timeUnit, base int64) (at int64, ok bool) {
	if n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) {
		return 0, false
	}
	n *= int64(unit)
	if n > math.MaxInt64-base {
		return 0, false
	}
	return n + base, true
}

// setDeadline is the EXPIRE family. A deadline that has passed deletes the key at once: the effect on the wire is a
// delete.
func setDeadline(c *Ctx, unit timeUnit, absolute bool) {
	key := c.Args[1]
	tx := c.Tx(key)
	o, text := parseExpireOptions(c.Args[3:])
	if text != "" {
		c.Out.Error(text)
		return
	}
	n, ok := resp.ParseInt(c.Args[2])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	var base int64
	if !absolute {
		base = tx.Now()
	}
	at, ok := expireDeadline(n, unit, base)
	if !ok {
		c.Out.Error(errExpireTime(c))
		return
	}
	r, found := tx.Get(key)
	if !found || !o.allow(r.Deadline, at) {
		c.Out.Int(0)
		return
	}
	if at <= tx.Now() {
		tx.Delete(key)
	} else {
		tx.Set(key, engine.Record{Type: r.Type, Deadline: at, Value: r.Value})
	}
	c.Out.Int(1)
}

func persist(c *Ctx) {
	key := c.Args[1]
	tx := c.Tx(key)
	r, found := tx.Get(key)
	if !found || r.Deadline == 0 {
		c.Out.Int(0)
		return
	}
	tx.Set(key, engine.Record{Type: r.Type, Value: r.Value})
	c.Out.Int(1)
}

func ttl(c *Ctx)         { replyTTL(c, false, seconds) }
func pttl(c *Ctx)        { replyTTL(c, false, millis) }
func expireTime(c *Ctx)  { replyTTL(c, true, seconds) }
func pexpireTime(c *Ctx) { replyTTL(c, true, millis) }

// replyTTL is the TTL family: -2 without a key, -1 without a deadline, seconds rounded to the nearest.
func replyTTL(c *Ctx, absolute bool, unit timeUnit) {
	key := c.Args[1]
	src := c.source(key)
	r, found := src.Get(key)
	c.count(found)
	switch {
	case !found:
		c.Out.Int(-2)
		return
	case r.Deadline == 0:
		c.Out.Int(-1)
		return
	}
	n := r.Deadline
	if !absolute {
		n = max(n-src.Now(), 0)
	}
	if unit == seconds {
		n = int64((uint64(n) + 500) / 1000) // n is not negative, and n+500 may be over the largest int64
	}
	c.Out.Int(n)
}
