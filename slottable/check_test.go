package slottable

import "fmt"

// check tests the numbered invariants of doc.go that can be seen in one state; the tests run it after every step.
func (t *Table) check() error {
	sessions := 0
	for i := range t.shards {
		for id, s := range t.shards[i].slots {
			switch {
			case s.Replica != id || s.Shard != i:
				return fmt.Errorf("slot %s/%d filed under %s/%d", s.Replica, s.Shard, id, i)
			case s.Attached() && t.sessions[s.Session] != s:
				return fmt.Errorf("1: session %d of %s does not lead to it", s.Session, id)
			case s.Acked && (s.Ack.Durable > s.Ack.Applied || s.Ack.Applied > s.Ack.Received):
				return fmt.Errorf("2: acks %+v", s.Ack)
			case s.Attached() && s.Acked && s.Ack.Received > s.Sent:
				return fmt.Errorf("2: received %d of %d sent", s.Ack.Received, s.Sent)
			case !s.Attached() && s.Syncing && s.Snapshot.IsZero():
				return fmt.Errorf("5: %s waits, detached, for no snapshot", id)
			}
			if s.Attached() {
				sessions++
			}
		}
	}
	if sessions != len(t.sessions) {
		return fmt.Errorf("1: %d sessions for %d attached slots", len(t.sessions), sessions)
	}
	return nil
}
