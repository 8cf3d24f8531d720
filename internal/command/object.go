package command

import (
	"math"

	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// object dispatches OBJECT's subcommands, for a caller that looked up the container only.
func object(c *Ctx) {
	sub, text := Find(c.Args)
	if sub == nil {
		c.Out.Error(text)
		return
	}
	if sub.Run == nil { // Find gives the container itself for OBJECT alone, whose arity forbids that
		c.Out.Error(errSyntax)
		return
	}
	sub.Run(c)
}

// withObject gets the key of an OBJECT subcommand, or replies null.
func withObject(c *Ctx) (r engine.Record, found bool) {
	key := c.Args[2]
	if r, found = c.read(key); !found {
		c.Out.Null()
	}
	return r, found
}

// objectEncoding answers what Redis would choose for a value that was just SET. Here all strings are stored alike.
func objectEncoding(c *Ctx) {
	if r, found := withObject(c); found {
		_, isInt := resp.ParseInt(r.Value)
		switch {
		case isInt:
			c.Out.BulkString("int")
		case len(r.Value) <= 44:
			c.Out.BulkString("embstr")
		default:
			c.Out.BulkString("raw")
		}
	}
}

// objectRefCount answers what Redis would for a value that was just SET: small integers are shared objects there.
func objectRefCount(c *Ctx) {
	if r, found := withObject(c); found {
		if n, isInt := resp.ParseInt(r.Value); isInt && n >= 0 && n < 10000 {
			c.Out.Int(math.MaxInt32)
			return
		}
		c.Out.Int(1)
	}
}

// objectIdleTime is always 0: nothing here remembers when a key was used last.
func objectIdleTime(c *Ctx) {
	if _, found := withObject(c); found {
		c.Out.Int(0)
	}
}

func objectFreq(c *Ctx) {
	if _, found := withObject(c); found {
		c.Out.Error(errNoFreq)
	}
}

func objectHelp(c *Ctx) {
	replyHelp(c.Out, "OBJECT",
		"ENCODING <key>",
		"    Return the kind of internal representation used in order to store the value",
		"    associated with a <key>.",
		"FREQ <key>",
		"    Return the access frequency index of the <key>. The returned integer is",
		"    proportional to the logarithm of the recent access frequency of the key.",
		"IDLETIME <key>",
		"    Return the idle time of the <key>, that is the approximated number of",
		"    seconds elapsed since the last access to the key.",
		"REFCOUNT <key>",
		"    Return the number of references of the value associated with the specified",
		"    <key>.")
}

// replyHelp writes the reply of a container's HELP.
func replyHelp(w *resp.Writer, name string, lines ...string) {
	w.Array(len(lines) + 3)
	w.Simple(name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for _, l := range lines {
		w.Simple(l)
	}
	w.Simple("HELP")
	w.Simple("    Prints this help.")
}
