package command

import (
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// Flags are a command's properties, in the order in which COMMAND INFO lists them.
type Flags uint32

// The flags that Redis has and something here asks for.
const (
	Write Flags = 1 << iota
	ReadOnly
	DenyOOM
	Admin
	NoScript
	Loading
	Stale
	SkipSlowlog
	Fast
	NoAuth
	NoAsyncLoading
	NoMulti
	AllowBusy
)

var flagNames = [...]string{"write", "readonly", "denyoom", "admin", "noscript", "loading", "stale", "skip_slowlog", "fast",
	"no_auth", "no_async_loading", "no_multi", "allow_busy"}

// Categories are the ACL categories that do not follow from the flags, in the order in which COMMAND INFO lists them.
type Categories uint32

// The categories. Those in the second block follow from the flags.
const (
	Keyspace Categories = 1 << iota
	reads
	writes
	String
	admins
	fasts
	slows
	Dangerous
	Connection
	Transaction
)

var categoryNames = [...]string{"keyspace", "read", "write", "string", "admin", "fast", "slow", "dangerous", "connection", "transaction"}

// Merge says how the router makes one reply of the parts of a command that it split by shard.
type Merge uint8

// The merges. A command with MergeNone whose keys lie in several shards runs in one exclusive section over all of them.
const (
	MergeNone  Merge = iota
	MergeSum         // integers are added: DEL, UNLINK, EXISTS, TOUCH
	MergeOK          // every part says OK: MSET
	MergeArray       // one element a key, put back in the order of the request: MGET
)

// KeyFlags say what a command does with a key.
type KeyFlags uint16

// The key flags, in the order in which COMMAND INFO lists them.
const (
	KeyRO KeyFlags = 1 << iota
	KeyRW
	KeyOW
	KeyRM
	KeyAccess
	KeyUpdate
	KeyInsert
	KeyDelete
	KeyVariable
)

var keyFlagNames = [...]string{"RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "variable_flags"}

// KeySpec is a run of keys among the arguments: the first at index First, every Step-th argument up to Last, which is
// counted from First, or from the end if it is negative.
type KeySpec struct {
	First, Last, Step int
	Flags             KeyFlags
	Notes             string
}

// Command is an entry of the table. Entries are read-only once the package is initialized.
type Command struct {
	Name  string // in lower case; "client|list" for a subcommand
	Arity int    // number of arguments with the name; -n means at least n
	Flags Flags
	// Extra are the ACL categories beside those that follow from Flags.
	Extra Categories
	Specs []KeySpec
	Tips  []string
	// Merge is for commands over several keys.
	Merge Merge
	// Run executes the command on a Ctx whose Args fit the arity, and makes exactly one reply. It is nil for commands that
	// the keyspace or the server carries out. A container's Run dispatches to its subcommands.
	Run func(*Ctx)
	// Prompt is for commands that the server carries out without waiting for anything, and whose reply does not depend on what other
	// commands of the same pipeline do to the keyspace.
	Prompt bool
	// Sub are the subcommands of a container.
	Sub []*Command
	// Summary, Since, Group and Complexity document the commands that are not Redis 7.0's. Those of Redis's own are in
	// docs.json.
	Summary, Since, Group, Complexity string

	first, last, step int // where the keys are; derived from Specs
}

// ArityOK reports whether a call may have argc arguments, the name included.
func (c *Command) ArityOK(argc int) bool {
	return c.Arity > 0 && argc == c.Arity || c.Arity < 0 && argc >= -c.Arity
}

// Keys places the keys of a call with argc arguments: first, first+step, … up to and including last. first is 0 if
// there is none.
func (c *Command) Keys(argc int) (first, last, step int) {
	if c.first == 0 || c.first >= argc {
		return 0, 0, 1
	}
	last = c.last
	if last < 0 {
		last += argc
	}
	last = min(last, argc-1)
	return c.first, last - (last-c.first)%c.step, c.step
}

// check is what makes a call impossible on any data: the error's text, or "".
func (c *Command) check(args [][]byte) string {
	first, last, step := c.Keys(len(args))
	if first == 0 {
		return ""
	}
	if step > 1 && (len(args)-first)%step != 0 {
		return WrongArity(c.Name)
	}
	for i := first; i <= last; i += step {
		if len(args[i]) > MaxKey {
			return errKeyTooLong
		}
	}
	return ""
}

// Ctx is one caller's place for calls of handlers, one at a time. Bind or Route it, then set Args for each call. It is
// not safe for concurrent use.
type Ctx struct {
	// Args are the command's words, its name first. Handlers do not keep or change them.
	Args [][]byte
	// Out takes exactly one reply a call.
	Out *resp.Writer
	// Hits and Misses count the keys that were looked up to be read, as Redis counts them. The caller sets them back.
	Hits, Misses uint64

	tx      *engine.Tx
	route   func(key []byte) *engine.Tx
	reader  *engine.Reader
	scratch []byte
}

// Bind makes the calls that follow run on one shard, which holds all of their keys.
func (c *Ctx) Bind(tx *engine.Tx, out *resp.Writer) {
	c.tx, c.route, c.reader, c.Out = tx, nil, nil, out
}

// BindReader makes the calls that follow read beside the shard that holds all of their keys. They must be calls of
// commands with the flag ReadOnly.
func (c *Ctx) BindReader(r *engine.Reader, out *resp.Writer) {
	c.tx, c.route, c.reader, c.Out = nil, nil, r, out
}

// Route makes the calls that follow run on several shards: txOf finds the one that holds a key.
func (c *Ctx) Route(txOf func(key []byte) *engine.Tx, out *resp.Writer) {
	c.tx, c.route, c.reader, c.Out = nil, txOf, nil, out
}

// Source is what a command reads from: the transaction on the key's shard, or a reader beside it.
type Source interface {
	// Get returns the key's record, unless it is absent or past its deadline. Value is valid until the next Get.
	Get(key []byte) (engine.Record, bool)
	// Now is the time of the command, in milliseconds since 1970.
	Now() int64
}

// source is where a command that only reads finds the key.
func (c *Ctx) source(key []byte) Source {
	if c.reader != nil {
		return c.reader
	}
	return c.Tx(key)
}

// Tx is where the key lives.
func (c *Ctx) Tx(key []byte) *engine.Tx {
	if c.tx != nil {
		return c.tx
	}
	return c.route(key)
}

// read gets a key's record for a reader.
func (c *Ctx) read(key []byte) (engine.Record, bool) {
	r, found := c.source(key).Get(key)
	c.count(found)
	return r, found
}

func (c *Ctx) count(found bool) {
	if found {
		c.Hits++
	} else {
		c.Misses++
	}
}

const keepScratch = 1 << 20

// concat returns the parts one behind the other in the Ctx's scratch buffer, valid until the next concat.
func (c *Ctx) concat(parts ...[]byte) []byte {
	if cap(c.scratch) > keepScratch {
		c.scratch = nil
	}
	c.scratch = c.scratch[:0]
	for _, p := range parts {
		c.scratch = append(c.scratch, p...)
	}
	return c.scratch
}
