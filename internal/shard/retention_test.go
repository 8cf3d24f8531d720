package shard_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/eventually"
	"github.com/understudy-kv/understudy/internal/shard"
)

// A primary's shard trims by itself as soon as it is open, and its slots are loaded later, when the slowest shard has
// recovered: until somebody can say what slots need, nothing within the disk budget goes (pitfall 37).
func TestNothingIsTrimmedBeforeTheSlotsAreKnown(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 4<<10, 8<<10, 1<<20
	s := open(t, o)
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 2000))
	}
	if err := s.Use(func(m shard.StateMachine) error { return m.Flush() }); err != nil { // recovery needs none of it
		t.Fatal(err)
	}
	if err := s.Log().Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.Log().Bounds().Oldest; oldest != 0 {
		t.Fatalf("the log begins at %d: a slot at 0 lost its promise before it was known", oldest)
	}
	s.SetRetention(func() (uint64, bool) { return 0, false })
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.Log().Bounds().Oldest; oldest == 0 {
		t.Fatal("without slots the log is trimmed to the keep")
	}
}

// A replica has no slots, so nobody will ever say anything.
func TestAReplicaTrimsToTheKeep(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 4<<10, 8<<10, 1<<20
	s := open(t, o)
	for i := range 40 {
		mustWrite(t, s, fmt.Sprint("k", i), strings.Repeat("v", 2000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Writable = false
	again := open(t, o)
	if err := again.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := again.Log().Bounds().Oldest; oldest == 0 {
		t.Fatal("a replica's log is not trimmed")
	}
}

// What recovery needs may be twice the keep while writes go on, so that more of it is overwritten before a flush. Once they
// rest, the log goes back to the keep.
func TestRestTrimsToTheKeep(t *testing.T) {
	o := options(vfs.NewMem())
	o.SegmentBytes, o.BacklogKeep, o.BacklogDisk = 256<<10, 2<<20, 32<<20
	s := open(t, o)
	s.SetRetention(func() (uint64, bool) { return 0, false })
	for i := range 100 {
		mustWrite(t, s, fmt.Sprint("k", i%3), strings.Repeat("v", 35_000))
	}
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	if oldest := s.Log().Bounds().Oldest; oldest != 0 {
		t.Fatalf("3.5 MB of log with a keep of 2 MiB, and it was flushed and begins at %d", oldest)
	}
	eventually.True(t, 20*time.Second, "the log is trimmed", func() bool { return s.Log().Bounds().Oldest > 0 })
}

// slowFlush is a state machine that is flushed slowly, or not at all.
type slowFlush struct {
	shard.StateMachine
	takes time.Duration
	fails error
}

func (m *slowFlush) Flush() error {
	<-time.After(m.takes) // this is the slow disk
	if m.fails != nil {
		return m.fails
	}
	return m.StateMachine.Flush()
}

// What recovery needs is never deleted, so a log that is written to faster than the state machine is flushed would pass any
// cap (pitfall 37): it waits. A flush that fails is no reason to wait for ever.
func TestTheCapHoldsWhileAFlushIsSlow(t *testing.T) {
	for name, fails := range map[string]error{"slow": nil, "fails": errors.New("no flush today")} {
		t.Run(name, func(t *testing.T) {
			const mib = 1 << 20
			writes := 32
			if testing.Short() {
				writes = 18
			}
			o := options(vfs.NewMem())
			inner := o.Open
			o.Open = func(e shard.Env) (shard.StateMachine, error) {
				m, err := inner(e)
				return &slowFlush{StateMachine: m, takes: 100 * time.Millisecond, fails: fails}, err
			}
			o.SegmentBytes, o.BacklogMemory, o.BacklogKeep, o.BacklogDisk = mib, mib, 2*mib, 8*mib
			s := open(t, o)
			s.SetRetention(func() (uint64, bool) { return 0, true }) // a replica that has nothing
			var most int64
			for i := range writes {
				mustWrite(t, s, fmt.Sprint("k", i%4), strings.Repeat("v", mib))
				most = max(most, s.Log().Bounds().Bytes)
			}
			if fails == nil && most > (8+4+2)*mib {
				t.Errorf("the log took %d bytes, its cap is %d", most, 8*mib)
			}
			if want := int64(writes-4) * mib; fails != nil && most < want {
				t.Errorf("the log took %d bytes at most, of %d MiB that nothing flushed", most, writes)
			}
		})
	}
}

// starts is a machine that notes where it was when it was first told that the shard has started.
type starts struct {
	shard.StateMachine
	at chan uint64
}

func (m *starts) Started() {
	p, _ := m.Position()
	select {
	case m.at <- p.Offset:
	default:
	}
}

// A state machine hears of the start, so that it may work in the background, and not before the log was replayed.
func TestMachineHearsOfTheStart(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, options(fs))
	for range 3 {
		mustWrite(t, s, "k", "v")
	}
	if err := s.Log().Sync(); err != nil {
		t.Fatal(err)
	}
	o := options(fs.CrashClone(vfs.CrashCloneCfg{}))
	inner, at := o.Open, make(chan uint64, 1)
	o.Open = func(e shard.Env) (shard.StateMachine, error) {
		m, err := inner(e)
		return &starts{m, at}, err
	}
	open(t, o)
	select {
	case got := <-at:
		if got != 3 {
			t.Fatalf("it heard of the start at offset %d, want 3", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it did not hear of the start")
	}
}
