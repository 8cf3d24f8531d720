package slottable

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/understudy-kv/understudy/wire"
)

var generation = wire.Generation{1}

func table(t *testing.T, shards int) *Table {
	t.Helper()
	tab := New(shards, Limits{})
	for i := range shards {
		tab.SetLineage(i, wire.Lineage{{Generation: generation}})
	}
	return tab
}

func attach(t *testing.T, tab *Table, shard int, replica, nonce byte, start uint64, now time.Duration) Session {
	t.Helper()
	s, _, err := tab.Attach(Attachment{Shard: shard, Replica: wire.ID{replica}, Nonce: wire.ID{nonce}, Address: "10.0.0.1:7", Start: start}, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ack(t *testing.T, tab *Table, s Session, received, applied, durable uint64) {
	t.Helper()
	if err := tab.Sent(s, received); err != nil {
		t.Fatal(err)
	}
	if err := tab.Ack(s, wire.Ack{Received: received, Applied: applied, Durable: durable}, 0); err != nil {
		t.Fatal(err)
	}
}

// Both edges of the window (pitfall 37): a nanosecond early keeps the slot, the exact moment reaps it; an attached
// slot is never reaped; a change of the window counts at once.
func TestReapAtBothEdges(t *testing.T) {
	const window = time.Minute
	tab := table(t, 1)
	s := attach(t, tab, 0, 1, 1, 5, 0)
	if r := tab.Reap(100*time.Hour, window); len(r) != 0 {
		t.Fatalf("reaped an attached slot: %+v", r)
	}
	tab.Detach(s, 10*time.Second)
	if r := tab.Reap(10*time.Second+window-1, window); len(r) != 0 {
		t.Fatalf("reaped a nanosecond early: %+v", r)
	}
	if f, any := tab.Floor(0); f != 5 || !any {
		t.Fatalf("floor %d %v, want 5", f, any)
	}
	if r := tab.Reap(10*time.Second+window, window); len(r) != 1 || r[0].Replica != (wire.ID{1}) {
		t.Fatalf("reaped %+v at the edge, want the slot", r)
	}
	if _, any := tab.Floor(0); any {
		t.Fatal("a reaped slot holds the log")
	}
}

// What the primary sleeps through is not of the window, and moves no slot beyond its beginning. An attached slot stays what it is.
func TestExtend(t *testing.T) {
	const window = time.Minute
	tab := table(t, 2)
	attach(t, tab, 1, 2, 1, 5, 0)
	tab.Detach(attach(t, tab, 0, 1, 1, 5, 0), 10*time.Second)
	tab.Extend(time.Hour, 10*time.Second+time.Hour+time.Second)
	if r := tab.Reap(10*time.Second+time.Hour+window-1, window); len(r) != 0 {
		t.Fatalf("reaped a nanosecond early: %+v", r)
	}
	tab.Extend(time.Hour, 2*time.Hour) // most of it before the slot was detached
	if r := tab.Reap(2*time.Hour+window-1, window); len(r) != 0 {
		t.Fatalf("reaped a nanosecond early: %+v", r)
	}
	if r := tab.Reap(2*time.Hour+window, window); len(r) != 1 || r[0].Replica != (wire.ID{1}) {
		t.Fatalf("reaped %+v at the edge, want the slot", r)
	}
}

// One process redials (same nonce): it takes over at once. Another process with its id is refused and told who holds
// the slot, until the holder is gone (pitfall 12).
func TestTakeOverAndRefusal(t *testing.T) {
	tab := table(t, 1)
	old := attach(t, tab, 0, 1, 1, 0, 0)
	s, replaced, err := tab.Attach(Attachment{Replica: wire.ID{1}, Nonce: wire.ID{1}, Address: "10.0.0.1:8"}, 0)
	if err != nil || replaced != old {
		t.Fatalf("take-over: replaced %d, %v; want %d", replaced, err, old)
	}
	if err := tab.Ack(old, wire.Ack{}, 0); !errors.Is(err, ErrSession) {
		t.Fatalf("an ack in the name of the replaced session: %v", err)
	}
	tab.Detach(old, 0)
	if tab.Live(0) != 1 {
		t.Fatal("the replaced session detached its successor")
	}
	other := Attachment{Replica: wire.ID{1}, Nonce: wire.ID{2}}
	var taken *TakenError
	if _, _, err := tab.Attach(other, 0); !errors.As(err, &taken) || taken.Holder != "10.0.0.1:8" {
		t.Fatalf("another process: %v", err)
	}
	tab.Detach(s, 0)
	if _, _, err := tab.Attach(other, 0); err != nil {
		t.Fatalf("after the holder left: %v", err)
	}
}

func TestAcksThatCannotBeTrue(t *testing.T) {
	tests := []struct {
		name string
		ack  wire.Ack
		ok   bool
	}{
		{"same again", wire.Ack{Received: 20, Applied: 15, Durable: 12}, true},
		{"forward", wire.Ack{Received: 30, Applied: 30, Durable: 30}, true},
		{"past what was sent", wire.Ack{Received: 31, Applied: 20, Durable: 20}, false},
		{"received backwards", wire.Ack{Received: 19, Applied: 15, Durable: 12}, false},
		{"applied backwards", wire.Ack{Received: 20, Applied: 14, Durable: 12}, false},
		{"durable backwards", wire.Ack{Received: 20, Applied: 15, Durable: 11}, false},
		{"applied past received", wire.Ack{Received: 20, Applied: 21, Durable: 12}, false},
		{"durable past applied", wire.Ack{Received: 20, Applied: 15, Durable: 16}, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tab := table(t, 1)
			s := attach(t, tab, 0, 1, 1, 10, 0)
			ack(t, tab, s, 20, 15, 12)
			if err := tab.Sent(s, 30); err != nil {
				t.Fatal(err)
			}
			before := tab.Slots(0)[0]
			err := tab.Ack(s, tc.ack, 0)
			var bad *AckError
			if tc.ok != (err == nil) || (!tc.ok && !errors.As(err, &bad)) {
				t.Fatalf("%v", err)
			}
			if after := tab.Slots(0)[0]; !tc.ok && !cmp.Equal(before, after, cmpopts.IgnoreUnexported(Slot{})) {
				t.Fatal("a refused ack changed the slot")
			}
		})
	}
}

// Sent is not acked, and the hello's claim is not an ack either.
func TestOnlyAcksCount(t *testing.T) {
	tab := table(t, 1)
	s := attach(t, tab, 0, 1, 1, 10, 0)
	if err := tab.Sent(s, 100); err != nil {
		t.Fatal(err)
	}
	if n := tab.Count([]uint64{5}, Applied); n != 0 {
		t.Fatalf("%d replicas counted without an ack", n)
	}
	ack(t, tab, s, 100, 60, 40)
	for _, tc := range []struct {
		offset uint64
		level  Level
		want   int
	}{{60, Applied, 1}, {61, Applied, 0}, {40, Durable, 1}, {41, Durable, 0}, {0, Durable, 1}} {
		if n := tab.Count([]uint64{tc.offset}, tc.level); n != tc.want {
			t.Errorf("count of %d at %d: %d, want %d", tc.offset, tc.level, n, tc.want)
		}
	}
}

// A stale high ack of another generation never satisfies a WAIT (pitfall 11).
func TestGenerationVoidsAcks(t *testing.T) {
	tab := table(t, 1)
	s := attach(t, tab, 0, 1, 1, 0, 0)
	ack(t, tab, s, 1000, 1000, 1000)
	tab.SetLineage(0, wire.Lineage{{Generation: generation}, {Generation: wire.Generation{2}, First: 400}})
	if n := tab.Count([]uint64{10}, Applied); n != 0 {
		t.Fatalf("%d replicas counted by an ack of the old generation", n)
	}
	if f, _ := tab.Floor(0); f != 400 {
		t.Fatalf("floor %d, want the new generation's first offset", f)
	}
	s = attach(t, tab, 0, 1, 1, 400, 0)
	if n := tab.Count([]uint64{10}, Applied); n != 0 {
		t.Fatal("counted before its first ack in the new generation")
	}
	ack(t, tab, s, 410, 410, 400)
	if n := tab.Count([]uint64{410}, Applied); n != 1 {
		t.Fatal("not counted after its ack in the new generation")
	}
}

// One replica counts once, and only if it covers every shard that was written to (pitfalls 12, 36).
func TestCountIsByReplicaOverShards(t *testing.T) {
	tab := table(t, 2)
	for _, r := range []byte{1, 2} {
		ack(t, tab, attach(t, tab, 0, r, r, 0, 0), 10, 10, 10)
	}
	ack(t, tab, attach(t, tab, 1, 1, 1, 0, 0), 5, 5, 5)
	for _, tc := range []struct {
		offsets []uint64
		want    int
	}{{[]uint64{10, 0}, 2}, {[]uint64{10, 5}, 1}, {[]uint64{10, 6}, 0}, {[]uint64{0, 5}, 1}, {[]uint64{0, 0}, 1}, {nil, 1}} {
		if n := tab.Count(tc.offsets, Applied); n != tc.want {
			t.Errorf("count of %v: %d, want %d", tc.offsets, n, tc.want)
		}
	}
}

// A slot in a full sync keeps the log from its snapshot on, detached too, and is not counted until the snapshot is
// installed (pitfall 9: a cut sync is not "caught up").
func TestSyncPinsItsSnapshot(t *testing.T) {
	tab := table(t, 1)
	a := Attachment{Replica: wire.ID{1}, Nonce: wire.ID{1}, Start: 90, Syncing: true}
	s, _, err := tab.Attach(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f, _ := tab.Floor(0); f != 90 {
		t.Fatalf("floor %d before the snapshot is made, want 90", f)
	}
	if err := tab.Sync(s, wire.ID{7}, 100); err != nil {
		t.Fatal(err)
	}
	if err := tab.Sent(s, 500); err != nil {
		t.Fatal(err)
	}
	if err := tab.Ack(s, wire.Ack{Received: 500}, 0); err != nil {
		t.Fatalf("a sign of life while it loads: %v", err)
	}
	if n := tab.Count([]uint64{1}, Applied); n != 0 {
		t.Fatal("counted while it loads")
	}
	tab.Detach(s, 0)
	if f, _ := tab.Floor(0); f != 100 || !tab.Uses(0, wire.ID{7}) {
		t.Fatalf("floor %d, uses %v after the cut; want 100, true", f, tab.Uses(0, wire.ID{7}))
	}
	s, _, err = tab.Attach(Attachment{Replica: wire.ID{1}, Nonce: wire.ID{1}, Start: 100, Syncing: true}, 0)
	if err != nil || tab.Sync(s, wire.ID{7}, 100) != nil {
		t.Fatal(err)
	}
	ack(t, tab, s, 120, 110, 0)
	if f, _ := tab.Floor(0); f != 110 || tab.Uses(0, wire.ID{7}) {
		t.Fatalf("floor %d, uses %v after the first ack; want 110, false", f, tab.Uses(0, wire.ID{7}))
	}
}

// A sync that ends before its snapshot exists leaves nothing behind.
func TestCutBeforeTheSnapshot(t *testing.T) {
	tab := table(t, 1)
	s, _, err := tab.Attach(Attachment{Replica: wire.ID{1}, Nonce: wire.ID{1}, Start: 90, Syncing: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	tab.Detach(s, 0)
	if n := len(tab.Slots(0)); n != 0 {
		t.Fatalf("%d slots left", n)
	}
}

// Slots outlive the primary; their window restarts with it, and acks of another generation come back void.
func TestExportImport(t *testing.T) {
	tab := table(t, 2)
	ack(t, tab, attach(t, tab, 0, 1, 1, 0, 0), 10, 9, 8)
	ack(t, tab, attach(t, tab, 1, 1, 1, 0, 0), 20, 19, 18)
	records := tab.Export()

	again := New(2, Limits{})
	again.Import(records, time.Hour)
	again.SetLineage(0, wire.Lineage{{Generation: generation}})
	again.SetLineage(1, wire.Lineage{{Generation: generation}, {Generation: wire.Generation{2}, First: 15}})
	if r := again.Reap(time.Hour+time.Minute-1, time.Minute); len(r) != 0 {
		t.Fatalf("reaped %d slots before the restarted window ended", len(r))
	}
	if a := again.Slots(0)[0]; !a.Acked || a.Ack != (wire.Ack{Received: 10, Applied: 9, Durable: 8}) || a.Need != 8 {
		t.Errorf("same generation: %+v", a)
	}
	if b := again.Slots(1)[0]; b.Acked || b.Need != 15 {
		t.Errorf("another generation: %+v", b)
	}
	if n := again.Count(nil, Applied); n != 0 {
		t.Errorf("%d detached replicas counted", n)
	}
}

// What a replica acked and then lost with its power is not held against it, nor counted for it.
func TestReplicaLostWhatItAcked(t *testing.T) {
	tab := table(t, 1)
	s := attach(t, tab, 0, 1, 1, 0, 0)
	ack(t, tab, s, 100, 100, 60)
	tab.Detach(s, 0)
	if f, _ := tab.Floor(0); f != 60 {
		t.Fatalf("floor %d, want the durable 60", f)
	}
	s = attach(t, tab, 0, 1, 2, 70, 0)
	if n := tab.Count([]uint64{71}, Applied); n != 0 {
		t.Fatal("counted for what it lost")
	}
	ack(t, tab, s, 70, 70, 0)
	if f, _ := tab.Floor(0); f != 70 {
		t.Fatalf("floor %d of a replica that cannot tell what is durable, want the applied 70", f)
	}
}

// A slot follows its shard's lineage: through promotions and back to where its history and the shard's part. Where they have
// nothing in common, as after a full sync of another history, it keeps no log: it goes at once, or with its session.
func TestSlotFollowsTheLineage(t *testing.T) {
	a, b, c, x := wire.Generation{1}, wire.Generation{2}, wire.Generation{3}, wire.Generation{9}
	tab := New(1, Limits{})
	step := func(what string, l wire.Lineage, slots int, floor uint64, gone int) {
		t.Helper()
		if g := tab.SetLineage(0, l); len(g) != gone {
			t.Errorf("%s: %d slots are gone, want %d", what, len(g), gone)
		}
		if n := len(tab.Slots(0)); n != slots {
			t.Errorf("%s: %d slots, want %d", what, n, slots)
		}
		if f, any := tab.Floor(0); f != floor || any != (slots > 0) {
			t.Errorf("%s: floor %d (%t), want %d", what, f, any, floor)
		}
	}
	step("the first generation", wire.Lineage{{Generation: a}, {Generation: b, First: 100}}, 0, 0, 0)
	away := attach(t, tab, 0, 1, 1, 110, 0)
	ack(t, tab, away, 120, 120, 120)
	tab.Detach(away, 0)
	here := attach(t, tab, 0, 2, 1, 130, 0)
	ack(t, tab, here, 140, 140, 140)
	step("two promotions at once", wire.Lineage{{Generation: a}, {Generation: b, First: 100}, {Generation: c, First: 115}}, 2, 115, 0)
	step("rewound, to another branch", wire.Lineage{{Generation: a}, {Generation: x, First: 105}}, 2, 100, 0)
	// The attached one's session goes on to ack what it was welcomed with; that counts for nothing here.
	ack(t, tab, here, 150, 150, 150)
	step("and back to the trunk", wire.Lineage{{Generation: a}}, 2, 100, 0)
	if n := tab.Count([]uint64{1}, Applied); n != 0 {
		t.Errorf("%d replicas counted by acks of a generation that is gone", n)
	}
	step("another history", wire.Lineage{{Generation: wire.Generation{7}}}, 1, 100, 1)
	if r := tab.Export(); len(r) != 1 || r[0].Acked {
		t.Errorf("exported %+v, want the slot without its acks", r)
	}
	tab.Detach(here, 0)
	if n := len(tab.Slots(0)); n != 0 {
		t.Errorf("%d slots outlive their session, of a history that is not here", n)
	}
}
