package keyspace

import (
	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
)

// route plans a command that one shard answers, or that is split among shards. It returns false, and plans nothing, for
// a command that it must not send on its way: without a key, refused, or on several shards as one.
func (s *Session) route(c *command.Command, args [][]byte) bool {
	n := len(s.on.shards)
	if s.on.selective() && s.on.refusal(c) != "" {
		return false
	}
	first, last, stride := c.Keys(len(args))
	if first == 0 {
		return false
	}
	if first == last || n == 1 {
		id := 0
		if n > 1 {
			id = s.shardOf(args[first])
		}
		s.single(c, args, id)
		return true
	}
	id := s.shardOf(args[first])
	for i := first + stride; i <= last; i += stride {
		if s.shardOf(args[i]) != id {
			if c.Merge == command.MergeNone {
				return false
			}
			s.split(c, args, first, last, stride)
			return true
		}
	}
	s.single(c, args, id)
	return true
}

func (s *Session) shardOf(key []byte) int {
	return engine.ShardOf(engine.Slot(key), len(s.on.shards))
}

func (s *Session) single(c *command.Command, args [][]byte, id int) {
	p := s.partOf(id)
	p.steps = append(p.steps, step{c, args})
	s.plan = append(s.plan, entry{cmd: c, part: p})
}

// partOf gives the pipeline's part on a shard.
func (s *Session) partOf(id int) *part {
	if n := len(s.on.shards); len(s.byID) < n {
		s.byID = append(s.byID, make([]*part, n-len(s.byID))...)
	}
	p := s.byID[id]
	if p == nil {
		p = s.ks.part()
		p.ks, p.round, p.shard, p.on, p.watch = s.ks, &s.round, id, s.on.shards[id], s.on.tables[id]
		p.out.Proto = s.Proto
		p.replyLimit = max(s.ks.opts.ReplyBytes/len(s.on.shards), 64<<10)
		s.byID[id] = p
		s.parts = append(s.parts, p)
	}
	return p
}
