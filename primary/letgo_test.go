package primary

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/wire"
)

// A replica that has installed its snapshot needs the log from where it is, like any other: the session goes on for days, and neither the log
// nor the snapshot is kept for it.
func TestInstalledSnapshotIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{ReconnectWindow: time.Minute})
		f := s.shards[0]
		f.write(20, 100)
		p := s.dial(0)
		st := s.beginSync(p, 1, wire.ID{})
		p.fetch(st, everything)
		p.finish(st)
		f.write(10, 100)
		p.frames(20, 30)
		p.ack(30, 0, 0) // a sign of life; it is still installing
		synctest.Wait()
		if floor, any := f.floor(); !any || floor != 20 {
			t.Fatalf("floor %d %v before the snapshot is installed", floor, any)
		}
		p.ack(30, 25, 20)
		synctest.Wait()
		if floor, any := f.floor(); !any || floor != 20 {
			t.Fatalf("floor %d %v, want what is durable at the replica", floor, any)
		}
		p.ack(30, 30, 30)
		synctest.Wait()
		if floor, any := f.floor(); !any || floor != 30 {
			t.Fatalf("floor %d %v once the replica has everything", floor, any)
		}
		for begun := time.Now(); time.Since(begun) < 90*time.Second; {
			p.until(wire.KindHeartbeat)
			p.ack(30, 30, 30)
		}
		synctest.Wait()
		if state, _ := s.slot(0); state != slotOnline {
			t.Fatalf("slot is %s", state)
		}
		if names, err := s.fs.List("shard-0/snapshots"); err != nil || len(names) != 0 {
			t.Fatalf("snapshots %q are left behind the window (%v)", names, err)
		}
	})
}
