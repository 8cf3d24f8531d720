package keyspace

import (
	"bytes"

	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/resp"
)

// split plans a command whose keys lie on several shards and whose replies can be merged: every shard gets the command
// with its own keys. What only some shards would refuse (arguments that do not go evenly with the keys, or a key that is
// too long) goes to one shard whole, which refuses all of it.
func (s *Session) split(c *command.Command, args [][]byte, first, last, stride int) {
	refused := (len(args)-first)%stride != 0
	for i := first; i <= last; i += stride {
		refused = refused || len(args[i]) > engine.MaxKey
	}
	if refused {
		s.single(c, args, s.shardOf(args[first]))
		return
	}
	from := len(s.shares)
	for i := first; i <= last; i += stride {
		p := s.partOf(s.shardOf(args[i]))
		if !p.sharing {
			p.sharing = true
			s.shares = append(s.shares, p)
		}
	}
	shares := s.shares[from:]
	for _, p := range shares {
		begin := len(s.args)
		s.args = append(s.args, args[:first]...)
		for i := first; i <= last; i += stride {
			if s.shardOf(args[i]) == p.shard {
				s.args = append(s.args, args[i:i+stride]...)
			}
		}
		end := len(s.args)
		p.sharing = false
		p.steps = append(p.steps, step{c, s.args[begin:end:end]})
	}
	s.plan = append(s.plan, entry{cmd: c, args: args, split: true, from: from, to: len(s.shares)})
}

func (s *Session) sharesReady(e *entry) bool {
	for _, p := range s.shares[e.from:e.to] {
		if p.taken == p.done {
			return false
		}
	}
	return true
}

// merge makes one reply of the shards' replies. If a shard replied with an error, that is the reply.
func (s *Session) merge(e *entry, sink Sink) error {
	var failed []byte
	shares := s.shares[e.from:e.to]
	for _, p := range shares {
		p.cursor = p.takenBytes
		p.takenBytes = p.ends[p.taken-p.base]
		p.taken++
		if reply := p.out.Buf[p.cursor:p.takenBytes]; reply[0] == '-' {
			failed = reply
		}
	}
	if e.mute {
		return nil
	}
	w := sink.Writer()
	if failed != nil {
		w.Buf = append(w.Buf, failed...)
		return nil
	}
	switch e.cmd.Merge {
	case command.MergeSum:
		sum := int64(0)
		for _, p := range shares {
			reply := p.out.Buf[p.cursor:p.takenBytes]
			n, _ := resp.ParseInt(reply[1 : len(reply)-2])
			sum += n
		}
		w.Int(sum)
	case command.MergeOK:
		w.OK()
	case command.MergeArray:
		return s.mergeArrays(e, sink)
	}
	return nil
}

// mergeArrays puts the elements of the shards' arrays in the order of the command's keys.
func (s *Session) mergeArrays(e *entry, sink Sink) error {
	for _, p := range s.shares[e.from:e.to] {
		p.cursor += lineEnd(p.out.Buf[p.cursor:])
	}
	first, last, stride := e.cmd.Keys(len(e.args))
	sink.Writer().Array((last-first)/stride + 1)
	for i := first; i <= last; i += stride {
		p := s.byID[s.shardOf(e.args[i])]
		from := p.cursor
		p.cursor += elementEnd(p.out.Buf[from:])
		w := sink.Writer()
		if p.cursor-from >= sendDirectly {
			if err := sink.Send(p.out.Buf[from:p.cursor]); err != nil {
				return err
			}
			continue
		}
		w.Buf = append(w.Buf, p.out.Buf[from:p.cursor]...)
		if len(w.Buf) >= s.ks.opts.ReplyBytes {
			if err := sink.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func lineEnd(b []byte) int { return bytes.IndexByte(b, '\n') + 1 }

// elementEnd is the length of the bulk string, null, integer or error that b begins with.
func elementEnd(b []byte) int {
	n := lineEnd(b)
	if b[0] != '$' {
		return n
	}
	if size, _ := resp.ParseInt(b[1 : n-2]); size >= 0 {
		n += int(size) + 2
	}
	return n
}
