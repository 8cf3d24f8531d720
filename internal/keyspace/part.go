package keyspace

import (
	"errors"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// step is one command, or one shard's share of a split one, on its way to a shard.
type step struct {
	cmd  *command.Command
	args [][]byte
}

// part is what one pipeline asks of one shard. It is a shard.Job that never blocks: from Offer until the round's end it
// belongs to whoever has the shard's turn, otherwise to the session.
//
// Invariants: 0 <= base <= taken <= done <= len(steps); ends[i-base] is where the reply of step i ends in out.Buf, for
// base <= i < done; the bytes before takenBytes were taken already. Steps before barred that write are answered with
// failure instead of run.
type part struct {
	ks    *Keyspace
	round *round
	shard int
	on    *shard.Shard
	watch *watchTable

	steps []step
	ends  []int
	done  int
	out   resp.Writer
	ctx   command.Ctx

	base, taken, takenBytes int
	cursor                  int  // in out.Buf, while a split command's replies are merged
	sharing                 bool // in the list of shares that is being made
	replyLimit              int  // bytes of replies after which Run stops

	// The group that Run is in: where it began, and whether this part wrote in it.
	group            uint64
	groupDone        int
	groupBytes       int
	wrote, final     bool
	readOnly         bool          // the keyspace takes no writes any more
	held             bool          // stopped before a write, since the gate is closed
	written          wire.Position // behind the last group in which this part wrote
	failure          error
	failures, barred int
}

// maxFailures is how often reads that shared a group with a failed write are tried again before they fail with it.
const maxFailures = 3

func (p *part) Run(g *shard.Group) bool {
	if p.group != g.ID {
		p.group, p.groupDone, p.groupBytes, p.wrote = g.ID, p.done, len(p.out.Buf), false
	}
	if g.Unread != nil {
		p.fail(g.Unread)
		p.final = true
		return true
	}
	tx := txOf(g)
	p.watch.attach(tx)
	p.ctx.Bind(tx, &p.out)
	on := p.ks.set.Load()
	p.readOnly, p.held = on.readOnly, false
	for p.final = true; p.done < len(p.steps); p.done++ {
		if len(p.out.Buf)-p.takenBytes >= p.replyLimit {
			break // the session sends what there is, then submits the part again
		}
		if g.Full() {
			p.final = false
			break
		}
		if on.gate != nil && p.steps[p.done].cmd.Flags&command.Write != 0 && p.done >= p.barred {
			p.held = true
			break // the session waits, then submits the part again
		}
		begun := len(p.out.Buf)
		if !p.step(g, tx, &p.steps[p.done]) {
			p.final = false
			break
		}
		if p.out.Buf[begun] == '-' {
			p.ks.noteError(p.out.Buf[begun:])
		}
		p.ends = append(p.ends, len(p.out.Buf))
	}
	p.watch.lookups.add(p.ctx.Hits, p.ctx.Misses)
	p.ctx.Hits, p.ctx.Misses = 0, 0
	return p.final
}

// step runs one command as one mutation. It returns false if the command does not fit in what is left of the group.
func (p *part) step(g *shard.Group, tx *engine.Tx, s *step) bool {
	if s.cmd.Flags&command.Write != 0 {
		if p.done < p.barred {
			p.out.Error(shardErrorText(p.shard, p.failure))
			return true
		}
		if p.readOnly {
			p.out.Error(errReadOnly)
			return true
		}
		if g.Err != nil {
			p.out.Error(shardErrorText(p.shard, g.Err))
			return true
		}
	}
	begun := len(p.out.Buf)
	first := g.Builder.Len() == 0
	tx.Begin(&g.Builder, g.ID, g.NowMillis)
	p.ctx.Args = s.args
	s.cmd.Run(&p.ctx)
	text, large := unfit(p.shard, tx, g)
	switch {
	case text != "":
		tx.Rollback()
		p.out.Buf = p.out.Buf[:begun]
		if large && !first {
			return false
		}
		p.out.Error(text)
	case tx.End():
		p.wrote = true
	}
	return true
}

// unfit is why what the transaction has done so far cannot be committed, or "", and whether that is its size.
func unfit(id int, tx *engine.Tx, g *shard.Group) (text string, large bool) {
	err := tx.Err()
	switch {
	case errors.Is(err, wire.ErrTooLarge), err == nil && g.Builder.Len() > maxMutation:
		return errTooLarge, true
	case err != nil:
		return readErrorText(id, err), false
	}
	return "", false
}

// maxMutation is the most that the mutations of one group may take, with room for the end marks.
const maxMutation = wire.MaxPayload - 1<<10

func (p *part) Committed(next uint64, err error) {
	switch {
	case err != nil:
		// Nothing of this group happened: forget its replies, and go back to where it began. Writes are barred from
		// another try, reads are not.
		p.failure = err
		p.failures++
		p.held = false
		p.barred = max(p.barred, p.done)
		p.done, p.out.Buf, p.ends = p.groupDone, p.out.Buf[:p.groupBytes], p.ends[:p.groupDone-p.base]
		if p.failures > maxFailures {
			for ; p.done < p.barred; p.done++ {
				p.out.Error(shardErrorText(p.shard, err))
				p.ends = append(p.ends, len(p.out.Buf))
			}
		}
	case p.wrote:
		p.written = behind(p.on, next)
	}
	if p.final {
		p.round.arrive()
	}
}

// idle reports whether the part has work left and all of its replies so far were taken.
func (p *part) idle() bool { return p.taken == p.done && p.done < len(p.steps) }

// rewind forgets the replies, which were all taken.
func (p *part) rewind() {
	p.out.Buf = p.out.Buf[:0]
	if cap(p.out.Buf) > 4*p.replyLimit {
		p.out.Buf = nil
	}
	p.swapped()
}

// swapped notes that out.Buf is an empty one.
func (p *part) swapped() { p.base, p.ends, p.takenBytes = p.done, p.ends[:0], 0 }

// fail answers all that is left with an error: the shard did not take the part.
func (p *part) fail(err error) {
	for ; p.done < len(p.steps); p.done++ {
		p.out.Error(shardErrorText(p.shard, err))
		p.ends = append(p.ends, len(p.out.Buf))
	}
}

// reset readies the part for another pipeline. Buffers that grew past what is usual are given back.
func (p *part) reset() {
	clear(p.steps)
	p.steps, p.ends = p.steps[:0], p.ends[:0]
	p.done, p.base, p.taken, p.takenBytes = 0, 0, 0, 0
	p.ks, p.round, p.on, p.watch, p.held = nil, nil, nil, nil, false
	p.ctx.Args = nil
	p.failure, p.failures, p.barred = nil, 0, 0
	p.written, p.wrote, p.group = wire.Position{}, false, 0
	p.out.Buf = p.out.Buf[:0]
	if cap(p.out.Buf) > keepBuffer {
		p.out.Buf = nil
	}
}

// keepBuffer is the size from which on a reply buffer is not kept for the next pipeline.
const keepBuffer = 64 << 10

// txOf is the transaction of the group's engine. A keyspace is only ever given shards that hold engines.
func txOf(g *shard.Group) *engine.Tx { return g.StateMachine.(*engine.Engine).Tx() }
