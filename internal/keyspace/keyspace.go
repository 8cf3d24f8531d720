package keyspace

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/shard"
)

// Options configure a Keyspace. The zero value works.
type Options struct {
	// ReplyBytes is how many bytes of replies a session gathers from the shards before it sends them. Default 1 MiB: a
	// pipeline of small commands is answered with one write, one of large values holds few of them.
	ReplyBytes int
	// ReapBudget is how long a shard deletes expired keys at most, ten times a second, while commands wait. Default 10 ms:
	// a tenth of the shard's time where more expires than that.
	ReapBudget time.Duration
	// Now is the wall clock that readers of many keys judge deadlines by. Default: time.Now.
	Now func() time.Time
	// Logger may be nil, which is silent.
	Logger hclog.Logger
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.ReplyBytes == 0 {
		o.ReplyBytes = 1 << 20
	}
	if o.ReapBudget == 0 {
		o.ReapBudget = 10 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
}

// Keyspace routes commands to shards. All methods are safe for concurrent use.
type Keyspace struct {
	opts  Options
	set   atomic.Pointer[set]
	parts sync.Pool
	Stats Stats

	mu struct {
		sync.Mutex // serialises changes of set
		tables     map[*shard.Shard]*watchTable
	}
}

// set is what a pipeline runs against: it looks once, and sees the shards and the mode of one moment.
type set struct {
	shards   []*shard.Shard
	tables   []*watchTable
	readOnly bool
	gate     *gate  // writes wait; or nil
	stale    string // what reads are answered, "" to serve them
	tooOld   string // the same, of a replica whose data is older than it may be
	few      bool   // writes are refused, since too few replicas have them
}

// selective reports whether there are commands that are refused now.
func (s *set) selective() bool {
	return s.readOnly || s.few || s.stale != "" || len(s.shards) == 0
}

// refusal is why a command is not executed now, or "".
func (s *set) refusal(c *command.Command) string {
	switch {
	case s.readOnly && c.Flags&command.Write != 0:
		return errReadOnly
	case s.few && !s.readOnly && c.Flags&command.Write != 0:
		return errNoReplicas
	case s.stale != "" && c.Flags&command.Stale == 0:
		return s.stale
	case s.tooOld != "" && s.readOnly && c.Flags&command.ReadOnly != 0:
		return s.tooOld
	// What moves the role is taken without data, too: a replica that cannot get any must be able to be sent elsewhere.
	case len(s.shards) == 0 && c.Flags&(command.Loading|command.NoAsyncLoading) == 0:
		return errLoading
	}
	return ""
}

// New makes a keyspace without shards: until SetShards it answers -LOADING to what needs them.
func New(o Options) *Keyspace {
	o.EnsureDefaults()
	k := &Keyspace{opts: o}
	k.mu.tables = map[*shard.Shard]*watchTable{}
	k.parts.New = func() any { return new(part) }
	k.set.Store(&set{})
	return k
}

// SetShards changes to these shards, shard i at index i, all at once; none means -LOADING. Pipelines that are being
// executed end on the old shards, and get errors if those are closed meanwhile. Watched keys count as changed.
func (k *Keyspace) SetShards(shards []*shard.Shard) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.set.Load()
	next.shards = append([]*shard.Shard(nil), shards...)
	next.tables = make([]*watchTable, len(shards))
	tables := make(map[*shard.Shard]*watchTable, len(shards))
	for i, s := range shards {
		t := k.mu.tables[s]
		if t == nil {
			t = newWatchTable()
			s.SetObserver(t.observe)
			s.SetTick(func(g *shard.Group) { k.tick(t, g) })
		}
		tables[s], next.tables[i] = t, t
	}
	for s, t := range k.mu.tables {
		if tables[s] == nil {
			k.Stats.lookups.add(t.lookups.hits.Load(), t.lookups.misses.Load())
		}
	}
	k.mu.tables = tables
	k.set.Store(&next)
}

// SetReadOnly refuses commands that write, as a replica does, or takes them.
func (k *Keyspace) SetReadOnly(v bool) { k.change(func(s *set) { s.readOnly = v }) }

// Stale says whether a replica that must not serve old data has any, and why.
type Stale uint8

// What a replica has, and what reads are answered.
const (
	Fresh    Stale = iota // they are served
	LinkDown              // -MASTERDOWN: it has lost its primary
	Syncing               // -LOADING: a full sync is under way
)

// SetStale refuses reads too, or serves them again.
func (k *Keyspace) SetStale(v Stale) {
	text := [...]string{Fresh: "", LinkDown: errMasterDown, Syncing: errLoading}[v]
	k.change(func(s *set) { s.stale = text })
}

// SetTooOld refuses reads on a replica whose data is older than limit, which it may be at most, or serves them again if
// limit is 0. What reads no keys (PING, INFO and their like) is answered in any case, and a primary's data is never too old.
func (k *Keyspace) SetTooOld(limit time.Duration) {
	k.change(func(s *set) {
		if s.tooOld = ""; limit > 0 {
			s.tooOld = fmt.Sprintf(errTooOld, limit)
		}
	})
}

// SetNoReplicas refuses commands that write, as a primary with too few good replicas does, or takes them again.
func (k *Keyspace) SetNoReplicas(v bool) { k.change(func(s *set) { s.few = v }) }

// change replaces the set by one that f has changed.
func (k *Keyspace) change(f func(*set)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.set.Load()
	f(&next)
	k.set.Store(&next)
}

// Shards are the present shards; none while loading. The slice must not be changed.
func (k *Keyspace) Shards() []*shard.Shard { return k.set.Load().shards }

// ReadOnly reports whether commands that write are refused.
func (k *Keyspace) ReadOnly() bool { return k.set.Load().readOnly }

// tick deletes expired keys. Only a primary does, and not while writes are held: a replica waits for the primary's deletes.
func (k *Keyspace) tick(t *watchTable, g *shard.Group) {
	if s := k.set.Load(); s.readOnly || s.gate != nil {
		return
	}
	k.Stats.Expired.Add(uint64(t.reap(g, k.opts.ReapBudget)))
}

// part gives a part that is empty and belongs to nobody.
func (k *Keyspace) part() *part { return k.parts.Get().(*part) }

func (k *Keyspace) putPart(p *part) {
	p.reset()
	k.parts.Put(p)
}
