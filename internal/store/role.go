package store

import (
	"fmt"

	"github.com/understudy-kv/understudy/internal/shard"
)

// recordRole settles what the node is when its directory is opened. A directory that has a role keeps it, whatever
// program opens it. A replica goes on following what it was told to follow last: by SetRole, or by Options.Primary when
// that is not what it was at the last start.
func (s *Store) recordRole() error {
	n := s.mu.node
	if n.Role == "" {
		n.Role = s.opts.Role
		if n.Role == "" {
			n.Role = Replica
		}
	}
	if s.opts.Primary != "" && s.opts.Primary != n.Asked {
		if n.Role == Replica {
			n.Primary, n.Handover, n.Building = s.opts.Primary, nil, nil
		}
		n.Asked = s.opts.Primary
	}
	if n.Role != Primary && n.Role != Replica {
		return fmt.Errorf("%s has the role %q: this version knows %s and %s", s.fs.PathJoin(s.opts.Dir, nodeFile), n.Role, Primary, Replica)
	}
	if n.Role == Primary {
		n.Building = nil // of the replica that it was
	}
	if n == s.mu.node {
		return nil
	}
	if err := s.writeNode(n); err != nil {
		return err
	}
	s.mu.node = n
	return nil
}

// Role is what the node is, and what it follows, "host:port-base", while it is a replica.
func (s *Store) Role() (Role, string) {
	n := s.nodeCopy()
	if n.Role == Primary {
		return Primary, ""
	}
	return n.Role, n.Primary
}

// SetRole records what the node is from now on; it is durable on return. A handover that it records is over. Data sets that
// are made later are opened as that role needs them; the open shards are the caller's to change. What shards a primary has
// are of one history, its own.
func (s *Store) SetRole(r Role, primary string) error {
	return s.changeNode(func(n *node) {
		n.Role, n.Primary, n.Handover = r, primary, nil
		n.Mixed = n.Mixed && r != Primary
	})
}

// SetMixed records that the shards of the node's dataset may hold states of two histories, or that they do not any more; it
// is durable on return. A switch to another dataset takes it back, and so does the role of a primary.
func (s *Store) SetMixed(mixed bool) error {
	return s.changeNode(func(n *node) { n.Mixed = mixed })
}

// Mixed is what SetMixed recorded last.
func (s *Store) Mixed() bool { return s.nodeCopy().Mixed }

// SetShardOptions changes what shards that are made or opened later get; the open shards are the caller's to change.
func (s *Store) SetShardOptions(change func(*shard.Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.opts.Shard)
}

func (s *Store) changeNode(change func(*node)) error { return s.changeWith(change, func() {}) }

// changeWith changes node.json, and once that is durable what the store knows, by then, too: it is called with mu held. So nobody who reads what
// the store knows waits for the disk.
func (s *Store) changeWith(change func(*node), then func()) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	n := s.nodeCopy()
	change(&n)
	if err := s.writeNode(n); err != nil {
		return fmt.Errorf("writing %s: %w", s.fs.PathJoin(s.opts.Dir, nodeFile), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.node = n
	s.opts.Shard.Writable = n.Role == Primary
	then()
	return nil
}
