package primary

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/node"
	"github.com/understudy-kv/understudy/internal/ports"
	"github.com/understudy-kv/understudy/wire"
)

// Slots outlive the primary, killed or stopped, and their window begins again with it.
func TestSlotsOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(10, 10)
		p := s.resume(0, 1, 3)
		p.frames(3, 10)
		p.ack(10, 9, 7)
		go p.keep(10)
		time.Sleep(2 * keepEvery)
		synctest.Wait()
		// What a kill would leave behind is on the disk already.
		records, err := loadSlots(s.fs, "node")
		if err != nil || len(records) != 1 || records[0].Need != 10 {
			t.Fatalf("%+v, %v", records, err)
		}
		s.end()
		time.Sleep(time.Hour)
		s.begin()
		if floor, any := f.floor(); !any || floor != 10 {
			t.Fatalf("floor %d %v after the restart", floor, any)
		}
		time.Sleep(DefaultReconnectWindow - time.Second)
		synctest.Wait()
		if state, applied := s.slot(0); state != slotDetached || applied != 10 {
			t.Fatalf("slot is %s at %d", state, applied)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(s.server.Status(0).Slots); n != 0 {
			t.Fatalf("%d slots after the restarted window", n)
		}
	})
}

// Acks of another generation come back void (pitfall 11).
func TestRestartWithANewGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 1, backlog.Options{}, ServerOptions{})
		f := s.shards[0]
		f.write(10, 10)
		p := s.resume(0, 1, 0)
		p.frames(0, 10)
		p.ack(10, 10, 10)
		p.close()
		synctest.Wait()
		s.end()
		f.lineage = f.lineage.Begin(wire.Generation{'b'}, 8)
		s.begin()
		slot := s.server.Status(0).Slots[0]
		if slot.Applied != 0 || slot.Durable != 0 {
			t.Fatalf("slot %+v", slot)
		}
		if floor, _ := f.floor(); floor != 8 {
			t.Fatalf("floor %d, want where the new generation began", floor)
		}
	})
}

// A damaged slots.json is told and forgotten; it holds no data.
func TestDamagedSlotsFile(t *testing.T) {
	s := newStage(t, 1, backlog.Options{}, ServerOptions{})
	s.end()
	file, err := s.fs.Create("node/"+slotsFile, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	s.begin()
}

func TestDropSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, 2, backlog.Options{}, ServerOptions{})
		a, b := s.resume(0, 1, 0), s.resume(1, 1, 0)
		if _, err := s.server.DropSlot(wire.ID{1}); err == nil {
			t.Fatal("dropped an attached slot")
		}
		a.close()
		b.close()
		synctest.Wait()
		if n, err := s.server.DropSlot(wire.ID{1}); n != 2 || err != nil {
			t.Fatalf("dropped %d, %v", n, err)
		}
		if _, err := s.server.DropSlot(wire.ID{1}); err == nil {
			t.Fatal("dropped what is not there")
		}
	})
}

// Over real sockets, with the kernel's time-out set.
func TestOverTCP(t *testing.T) {
	base, err := ports.Free("127.0.0.1", 2)
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := node.Listen("127.0.0.1", base, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Listen("127.0.0.1", base, 1); err == nil {
		t.Fatal("a port was opened twice")
	}
	s := newStage(t, 2, backlog.Options{}, ServerOptions{})
	s.end()
	o := ServerOptions{FS: s.fs, Node: wire.ID{1}, Listeners: listeners, Shards: []Shard{s.shards[0], s.shards[1]}}
	server, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.shards[1].write(3, 100_000)
	conn, err := dialTCP(listeners[1].Addr())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, link: newLink(conn)}
	h := hello(1, at(0))
	h.Shard, h.Shards = 1, 2
	p.send(wire.AppendHello(nil, h))
	p.welcome(wire.KindResume)
	p.frames(0, 3)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if r := p.ending(); r.Code != wire.CodeShutdown {
		t.Fatalf("ended with %q", r.Code)
	}
	p.close()
}
