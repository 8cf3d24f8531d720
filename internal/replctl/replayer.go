package replctl

import (
	"context"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/resp"
)

// A pipeline is flushed at whichever of the two it reaches first.
const (
	replayBatch = 500
	replayBytes = 1 << 20
)

// replayer sends a plan to a primary, or prints it.
type replayer struct {
	plan *replayPlan
	to   *client.Conn
	out  output
	dry  bool
	full bool
	now  int64 // milliseconds since 1970: what has expired by then is deleted

	batch []replayed
	bytes int
	total struct {
		sets, deletes, expired int // that were answered, or with dry printed
		flushed                bool
		same, other            int // dry: keys that the target has alike, and otherwise
	}
}

// replayed is a command, and what it comes from.
type replayed struct {
	args     []string
	shard    int
	offset   uint64
	commit   int64
	deadline int64 // of the key, 0 for none
	expired  bool
	last     bool
}

func (r *replayer) run(ctx context.Context, flush bool) error {
	if flush && len(r.plan.flushes) > 0 {
		if err := r.flushAll(); err != nil {
			return err
		}
	}
	err := r.plan.walk(ctx, r.plan.whole, func(file int, n uint64, e effect) error {
		send, last := r.plan.wants(file, n, e)
		if !send {
			return nil
		}
		c := replayed{args: e.command(r.now), shard: r.plan.files[file].shard, offset: e.offset, commit: e.commit, deadline: e.deadline, last: last}
		c.expired = e.kind == effectSet && c.args[0] == "DEL"
		r.batch = append(r.batch, c)
		if r.bytes += len(e.key) + len(e.value); len(r.batch) < replayBatch && r.bytes < replayBytes {
			return nil
		}
		return r.flush()
	})
	if err != nil {
		return err
	}
	return r.flush()
}

func (r *replayer) flushAll() error {
	r.total.flushed = true
	if r.dry {
		fmt.Fprintln(r.out.stdout, "FLUSHALL")
		return nil
	}
	_, err := r.to.Do("FLUSHALL")
	return err
}

// flush sends what is gathered and checks every reply.
func (r *replayer) flush() error {
	batch := r.batch
	r.batch, r.bytes = nil, 0
	if r.dry {
		return r.print(batch)
	}
	for _, c := range batch {
		r.to.Queue(c.args...)
	}
	r.patience(r.to.Queued())
	return r.to.Flush(func(i int, v resp.Value) error {
		c := batch[i]
		if err := v.Err(); err != nil {
			return fmt.Errorf("%s of shard %d, offset %d: %w", printed(c.args[:2], false), c.shard, c.offset, err)
		}
		r.count(c)
		return nil
	})
}

// patience gives the target a second more for each MiB.
func (r *replayer) patience(bytes int) {
	r.to.SetTimeout(askTimeout + time.Duration(bytes>>20)*time.Second)
}

func (r *replayer) count(c replayed) {
	switch {
	case c.expired:
		r.total.expired++
		fallthrough
	case c.args[0] == "DEL":
		r.total.deletes++
	default:
		r.total.sets++
	}
}

// print prints commands. Before a key's last it says what the target has, if anything.
func (r *replayer) print(batch []replayed) error {
	marks, err := r.compare(batch)
	if err != nil {
		return err
	}
	for i, c := range batch {
		fmt.Fprintf(r.out.stdout, "# shard %d, offset %d, committed %s", c.shard, c.offset, commitTime(c.commit))
		if c.expired {
			fmt.Fprintf(r.out.stdout, ", expired %s", deadline(c.deadline))
		}
		if marks[i] != "" {
			fmt.Fprintf(r.out.stdout, "; the target has %s", marks[i])
		}
		fmt.Fprintf(r.out.stdout, "\n%s\n", printed(c.args, r.full))
		r.count(c)
	}
	return nil
}

// compare asks the target for each key whose last command this is, and says in words what it has.
func (r *replayer) compare(batch []replayed) ([]string, error) {
	marks := make([]string, len(batch))
	var asked []int
	for i, c := range batch {
		if c.last {
			asked = append(asked, i)
			r.to.Queue("GET", c.args[1])
			r.to.Queue("PEXPIRETIME", c.args[1])
		}
	}
	r.patience(r.bytesAsked(batch))
	var value resp.Value
	err := r.to.Flush(func(i int, v resp.Value) error {
		if i%2 == 0 {
			value = v
			return nil
		}
		c := batch[asked[i/2]]
		if err := v.Err(); err != nil {
			return fmt.Errorf("%s: %w", printed([]string{"PEXPIRETIME", c.args[1]}, false), err)
		}
		mark, same := c.against(value, v.Int, r.full)
		if marks[asked[i/2]] = mark; same {
			r.total.same++
		} else if mark != "" {
			r.total.other++
		}
		return nil
	})
	return marks, err
}

// bytesAsked guesses at the size of the replies: the values there are about as long as those here.
func (r *replayer) bytesAsked(batch []replayed) (n int) {
	for _, c := range batch {
		for _, a := range c.args {
			n += len(a)
		}
	}
	return n
}

// against says what the target has of the command's key, "" for nothing where there should be something, and whether that
// is what the command would bring about.
func (c replayed) against(value resp.Value, expires int64, full bool) (mark string, same bool) {
	set := c.args[0] == "SET"
	switch {
	case value.IsNull():
		if set {
			return "", false
		}
		return "no such key already", true
	case value.Err() != nil:
		return "another type there: " + value.Str, false
	case set && value.Str == c.args[2] && max(expires, 0) == c.deadline:
		return "the same already", true
	}
	switch {
	case !set:
		mark = "a value, "
	case value.Str == c.args[2]:
		mark = "another deadline for "
	default:
		mark = "another value, "
	}
	if full || len(value.Str) <= cutAt {
		mark += quoted(value.Str)
	} else {
		mark += fmt.Sprintf("%s… of %d bytes", quoted(value.Str[:cutAt]), len(value.Str))
	}
	if expires > 0 {
		mark += ", until " + deadline(expires)
	}
	return mark, false
}

func (r *replayer) summarize() {
	verb := "sent to"
	if r.dry {
		verb = "would be sent to"
	}
	t := r.total
	flush := ""
	if t.flushed {
		flush = "FLUSHALL, "
	}
	expired := ""
	if t.expired > 0 {
		expired = fmt.Sprintf(" (%d of keys that expired meanwhile)", t.expired)
	}
	fmt.Fprintf(r.out.stdout, "# %s%d SET and %d DEL%s %s %s", flush, t.sets, t.deletes, expired, verb, r.to.Addr())
	if r.dry {
		fmt.Fprintf(r.out.stdout, ": of %d keys, the target has %d otherwise and %d alike", len(r.plan.last), t.other, t.same)
	}
	fmt.Fprintln(r.out.stdout)
}
