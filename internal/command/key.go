package command

import (
	"bytes"
	"math"

	"github.com/understudy-kv/understudy/internal/resp"
)

// del is DEL and UNLINK. A key named twice counts once: the second time it is gone.
func del(c *Ctx) {
	var n int64
	for _, key := range c.Args[1:] {
		tx := c.Tx(key)
		if _, found := tx.Get(key); found {
			tx.Delete(key)
			n++
		}
	}
	c.Out.Int(n)
}

// exists is EXISTS and TOUCH: nothing here remembers when a key was used last.
func exists(c *Ctx) {
	var n int64
	for _, key := range c.Args[1:] {
		if _, found := c.read(key); found {
			n++
		}
	}
	c.Out.Int(n)
}

func typeOf(c *Ctx) {
	r, _ := c.read(c.Args[1])
	c.Out.Simple(r.Type.String())
}

func rename(c *Ctx) {
	if moveKey(c, false) {
		c.Out.OK()
	}
}

func renameNX(c *Ctx) {
	if moveKey(c, true) {
		c.Out.Int(1)
	}
}

// moveKey renames Args[1] to Args[2], deadline and all. It reports false if it has replied.
func moveKey(c *Ctx, nx bool) bool {
	from, to := c.Args[1], c.Args[2]
	src, dst := c.Tx(from), c.Tx(to)
	r, found := src.Get(from)
	if !found {
		c.Out.Error(errNoKey)
		return false
	}
	if bytes.Equal(from, to) {
		if nx {
			c.Out.Int(0)
			return false
		}
		return true
	}
	if nx {
		r.Value = c.concat(r.Value)
		if _, taken := dst.Get(to); taken {
			c.Out.Int(0)
			return false
		}
	}
	dst.Set(to, r)
	src.Delete(from)
	return true
}

func copyKey(c *Ctx) {
	from, to := c.Args[1], c.Args[2]
	replace := false
	for i := 3; i < len(c.Args); i++ {
		switch {
		case is(c.Args[i], "replace"):
			replace = true
		case is(c.Args[i], "db") && i+1 < len(c.Args):
			i++
			if text := checkDB(c.Args[i]); text != "" {
				c.Out.Error(text)
				return
			}
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	if bytes.Equal(from, to) {
		c.Out.Error(errSameObject)
		return
	}
	r, found := c.read(from)
	if !found {
		c.Out.Int(0)
		return
	}
	dst := c.Tx(to)
	if !replace {
		r.Value = c.concat(r.Value)
		if _, taken := dst.Get(to); taken {
			c.Out.Int(0)
			return
		}
	}
	dst.Set(to, r)
	c.Out.Int(1)
}

// checkDB checks a database number: there is one, 0.
func checkDB(arg []byte) string {
	n, ok := resp.ParseInt(arg)
	switch {
	case !ok:
		return errNotInteger
	case n < math.MinInt32 || n > math.MaxInt32:
		return errIntRange
	case n != 0:
		return errDBRange
	}
	return ""
}
