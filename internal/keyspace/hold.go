package keyspace

import (
	"errors"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// grip is one shard at the disposal of a command or transaction: nothing else runs there meanwhile. What is written
// through it is one mutation of that shard.
type grip struct {
	id    int
	group *shard.Group
	tx    *engine.Tx
	watch *watchTable
	wrote bool
}

func (h *grip) take(g *shard.Group, t *watchTable) {
	h.group, h.tx, h.watch = g, txOf(g), t
	t.attach(h.tx)
}

func (h *grip) begin() { h.tx.Begin(&h.group.Builder, h.group.ID, h.group.NowMillis) }

// hold is a shard.Job that parks the shard's loop, at the beginning of a group, until it is released. Who holds several
// shards takes them in ascending order, so two of them never wait for each other.
type hold struct {
	grip
	on      *shard.Shard
	parked  chan error    // capacity 1: nil once the loop is parked, or why it never will be
	release chan struct{} // closed to let the loop go on
	result  chan outcome  // capacity 1
	held    bool
}

// outcome is what became of the group that a job wrote in.
type outcome struct {
	at  wire.Position // behind the group
	err error
}

func (h *hold) Run(g *shard.Group) bool {
	if g.Unread != nil {
		h.parked <- g.Unread
		return true
	}
	if g.Builder.Count() > 0 {
		return false // the mutations before it are to be visible first
	}
	h.held = true
	h.take(g, h.watch)
	h.parked <- nil
	<-h.release
	return true
}

func (h *hold) Committed(next uint64, err error) {
	if h.held {
		h.result <- outcome{behind(h.on, next), err}
	}
}

// acquire parks the loops of the shards, whose ids ascend. On an error it has let go of all of them.
func (s *Session) acquire(ids []int) ([]*hold, int, error) {
	s.ks.Stats.Exclusives.Add(1)
	holds := make([]*hold, 0, len(ids))
	for _, id := range ids {
		h := &hold{
			grip: grip{id: id, watch: s.on.tables[id]}, on: s.on.shards[id],
			parked: make(chan error, 1), release: make(chan struct{}), result: make(chan outcome, 1),
		}
		err := h.on.Submit(h)
		if err == nil {
			err = <-h.parked
		}
		if err != nil {
			s.letGo(holds)
			return nil, id, err
		}
		holds = append(holds, h)
	}
	return holds, 0, nil
}

// letGo releases the shards and waits until what was written on them is committed. It returns the first error and its
// shard.
func (s *Session) letGo(holds []*hold) (id int, err error) {
	for _, h := range holds {
		close(h.release)
	}
	for _, h := range holds {
		o := <-h.result
		if o.err != nil && h.wrote && err == nil {
			id, err = h.id, o.err
		}
		if o.err == nil && h.wrote {
			s.noteWritten(h.id, o.at)
		}
	}
	return id, err
}

// behind is the position that a group ends at. On the shard's loop it is exact: its generation is the one that the group was
// written in.
func behind(on *shard.Shard, next uint64) wire.Position { return on.Lineage().At(next) }

// call is a shard.Job that runs a function on the loop, within a group.
type call struct {
	on     *shard.Shard
	run    func(g *shard.Group) (done bool)
	result chan outcome // capacity 1
	reads  bool         // it does not run while nothing may be read
	done   bool
	unread error // why it did not run
}

func (c *call) Run(g *shard.Group) bool {
	if c.reads && g.Unread != nil {
		c.unread, c.done = g.Unread, true
		return true
	}
	c.done = c.run(g)
	return c.done
}

func (c *call) Committed(next uint64, err error) {
	if c.done {
		c.result <- outcome{behind(c.on, next), errors.Join(c.unread, err)}
	}
}

// onLoop runs f on the shard's loop, unless nothing may be read there, and waits until its group is committed.
func onLoop(on *shard.Shard, f func(g *shard.Group) bool) outcome {
	c := &call{on: on, run: f, reads: true, result: make(chan outcome, 1)}
	if err := on.Submit(c); err != nil {
		return outcome{err: err}
	}
	return <-c.result
}

// addShards adds to need the shards of the command's keys; all of them for a command on the whole keyspace.
func (s *Session) addShards(need []bool, c *command.Command, args [][]byte) {
	if wholes[c.Name] != nil || c.Name == "flushall" || c.Name == "flushdb" {
		for id := range need {
			need[id] = true
		}
		return
	}
	first, last, stride := c.Keys(len(args))
	for i := first; first > 0 && i <= last; i += stride {
		need[s.shardOf(args[i])] = true
	}
}

func idsOf(need []bool) (ids []int) {
	for id, n := range need {
		if n {
			ids = append(ids, id)
		}
	}
	return ids
}
