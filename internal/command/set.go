package command

import (
	"math"
	"strings"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// setOptions are the words behind SET's value and GETEX's key.
type setOptions struct {
	nx, xx, get, keepTTL, persist bool
	unit                          timeUnit
	absolute                      bool
	time                          []byte // nil: no expiry was asked for
}

type timeUnit int64

// The units of expiry times, in milliseconds.
const (
	seconds timeUnit = 1000
	millis  timeUnit = 1
)

// is compares an option without regard to case.
func is(arg []byte, option string) bool {
	return len(arg) == len(option) && strings.EqualFold(string(arg), option)
}

// parseSetOptions reads the options of SET, or of GETEX if getex. It reports whether they are good syntax.
func parseSetOptions(args [][]byte, getex bool) (o setOptions, ok bool) {
	expiry := func() bool { return o.time != nil }
	for i := 0; i < len(args); i++ {
		a := args[i]
		var unit timeUnit
		var absolute bool
		switch {
		case is(a, "nx") && !getex && !o.xx:
			o.nx = true
			continue
		case is(a, "xx") && !getex && !o.nx:
			o.xx = true
			continue
		case is(a, "get") && !getex:
			o.get = true
			continue
		case is(a, "keepttl") && !getex && !expiry():
			o.keepTTL = true
			continue
		case is(a, "persist") && getex && !expiry():
			o.persist = true
			continue
		case is(a, "ex"):
			unit = seconds
		case is(a, "px"):
			unit = millis
		case is(a, "exat"):
			unit, absolute = seconds, true
		case is(a, "pxat"):
			unit, absolute = millis, true
		default:
			return o, false
		}
		// One kind of expiry, though Redis lets it be said twice: the last one counts.
		if o.keepTTL || o.persist || i+1 == len(args) || expiry() && (o.unit != unit || o.absolute != absolute) {
			return o, false
		}
		i++
		o.unit, o.absolute, o.time = unit, absolute, args[i]
	}
	return o, true
}

// deadline turns the time that a client sent into milliseconds since 1970. text is an error reply, or "".
func (c *Ctx) deadline(tx *engine.Tx, time []byte, unit timeUnit, absolute bool) (at int64, text string) {
	n, ok := resp.ParseInt(time)
	if !ok {
		return 0, errNotInteger
	}
	if n <= 0 || n > math.MaxInt64/int64(unit) {
		return 0, errExpireTime(c)
	}
	n *= int64(unit)
	if !absolute {
		if n > math.MaxInt64-tx.Now() {
			return 0, errExpireTime(c)
		}
		n += tx.Now()
	}
	return n, ""
}

// put stores a record, or, if its deadline has passed already, what such a record is worth: nothing.
func put(tx *engine.Tx, key []byte, r engine.Record, existed bool) {
	switch {
	case !r.Expired(tx.Now()):
		tx.Set(key, r)
	case existed:
		tx.Delete(key)
	}
}

func set(c *Ctx) {
	key, value := c.Args[1], c.Args[2]
	tx := c.Tx(key)
	if len(c.Args) == 3 { // nothing depends on what was there
		tx.Set(key, engine.Record{Type: engine.TypeString, Value: value})
		c.Out.OK()
		return
	}
	o, ok := parseSetOptions(c.Args[3:], false)
	if !ok {
		c.Out.Error(errSyntax)
		return
	}
	r := engine.Record{Type: engine.TypeString, Value: value}
	if o.time != nil {
		var text string
		if r.Deadline, text = c.deadline(tx, o.time, o.unit, o.absolute); text != "" {
			c.Out.Error(text)
			return
		}
	}
	old, found := tx.Get(key)
	if o.get {
		c.count(found)
		switch {
		case found && old.Type != engine.TypeString:
			c.Out.Error(errWrongType)
			return
		case found:
			c.Out.Bulk(old.Value)
		default:
			c.Out.Null()
		}
	}
	if o.nx && found || o.xx && !found {
		if !o.get {
			c.Out.Null()
		}
		return
	}
	if o.keepTTL {
		r.Deadline = old.Deadline
	}
	put(tx, key, r, found)
	if !o.get {
		c.Out.OK()
	}
}

func setNX(c *Ctx) {
	key := c.Args[1]
	tx := c.Tx(key)
	if _, found := tx.Get(key); found {
		c.Out.Int(0)
		return
	}
	tx.Set(key, engine.Record{Type: engine.TypeString, Value: c.Args[2]})
	c.Out.Int(1)
}

func setEx(c *Ctx)  { setWithTTL(c, seconds) }
func psetEx(c *Ctx) { setWithTTL(c, millis) }

func setWithTTL(c *Ctx, unit timeUnit) {
	key := c.Args[1]
	tx := c.Tx(key)
	at, text := c.deadline(tx, c.Args[2], unit, false)
	if text != "" {
		c.Out.Error(text)
		return
	}
	tx.Set(key, engine.Record{Type: engine.TypeString, Deadline: at, Value: c.Args[3]})
	c.Out.OK()
}

func mset(c *Ctx) {
	for i := 1; i < len(c.Args); i += 2 {
		c.Tx(c.Args[i]).Set(c.Args[i], engine.Record{Type: engine.TypeString, Value: c.Args[i+1]})
	}
	c.Out.OK()
}

func msetNX(c *Ctx) {
	for i := 1; i < len(c.Args); i += 2 {
		if _, found := c.Tx(c.Args[i]).Get(c.Args[i]); found {
			c.Out.Int(0)
			return
		}
	}
	for i := 1; i < len(c.Args); i += 2 {
		c.Tx(c.Args[i]).Set(c.Args[i], engine.Record{Type: engine.TypeString, Value: c.Args[i+1]})
	}
	c.Out.Int(1)
}
