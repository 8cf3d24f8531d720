package engine

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/polite"
)

// TestPoliteFilter: the filters are what they were, and whoever builds one yields between its keys.
func TestPoliteFilter(t *testing.T) {
	base := bloom.FilterPolicy(10)
	turns := 0
	p := politeFilter{base, polite.Worker{Budget: polite.NewBudget(1), Urgent: func() bool { turns++; return true }}}
	if p.Name() != base.Name() {
		t.Fatalf("the name is %s, files say %s", p.Name(), base.Name())
	}
	want := base.NewWriter(pebble.TableFilter)
	got := p.NewWriter(pebble.TableFilter).(*politeWriter)
	for i := range 10 * keysATurn {
		if yielded := turns > 0; yielded != (i >= keysATurn) {
			t.Fatalf("behind %d keys: yielded %v", i, yielded)
		}
		key := fmt.Append(nil, "key", i)
		want.AddKey(key)
		got.AddKey(key)
	}
	if a, b := want.Finish(nil), got.Finish(nil); !bytes.Equal(a, b) {
		t.Error("the filter differs")
	}
	budget := polite.NewBudget(1)
	for _, l := range pebbleOptions(Options{Shared: &Shared{}}, nil, polite.Worker{Budget: budget}).Levels {
		if f, polite := l.FilterPolicy.(politeFilter); !polite || f.worker.Budget != budget {
			t.Errorf("a level's filter is %#v", l.FilterPolicy)
		}
	}
}

// TestUrgent: background work keeps to its budget from when the owner has started, unless somebody waits for it, or writers soon will; and it lets
// other threads come first from then on, unless writers soon will wait, and nobody for a checkpoint.
func TestUrgent(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, vfs.NewMem(), Options{MemTableSize: 1 << 20, Tuning: Tuning{Logged: 1 << 30}, BeforeFlush: func() error { <-hold; return nil }})
	flush := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(flush)
	check := func(urgent, gives bool, when string) {
		t.Helper()
		if w := r.e.worker(); w.Budget == nil || w.Urgent() != urgent || w.Gives() != gives {
			t.Errorf("%s: urgent is %v, gives %v", when, w.Urgent(), w.Gives())
		}
	}
	check(true, false, "before the owner has started")
	r.e.Started()
	check(false, true, "at rest")
	release, other := r.e.Hurry(), r.e.Hurry()
	check(true, true, "while somebody waits")
	release()
	release()
	check(true, true, "while another one waits")
	other()
	check(false, true, "when nobody does any more")

	r.e.pressure.tables.Add(urgentTables)
	check(true, false, "with many tables in level 0")
	r.e.flusher.briefly.Add(1)
	check(true, true, "for a checkpoint, with many tables")
	r.e.flusher.briefly.Add(-1)
	r.e.pressure.tables.Add(-urgentTables)

	// Nothing is flushed meanwhile, so the memtables fill up.
	for i := 0; !r.e.worker().Urgent(); i++ {
		if i == 470 {
			t.Fatal("not urgent with full memtables")
		}
		r.begin()
		r.set(fmt.Sprint("key", i), strings.Repeat("v", 10_000))
		r.commit()
	}
	if l := r.e.layers.Load(); len(l.frozen) != 1 || 3*l.active.bytes < l.frozen[0].bytes || l.active.bytes > l.frozen[0].bytes/2 {
		t.Errorf("urgent with %d bytes behind %d memtables", l.active.bytes, len(l.frozen))
	}
	flush()
	r.must(r.e.Flush())
	check(false, true, "when everything is flushed")
	r.must(r.e.Close())
	check(true, false, "while it closes")
}

// TestBehind: the flusher falls behind when a third of what it writes has come meanwhile, wherever the values lie.
func TestBehind(t *testing.T) {
	for _, c := range []struct {
		active, first, second *memtable
		want                  bool
	}{
		{&memtable{bytes: 100}, &memtable{bytes: 303}, &memtable{}, false},
		{&memtable{bytes: 100}, &memtable{bytes: 300}, &memtable{}, true},
		{&memtable{bytes: 100}, &memtable{bytes: 200}, &memtable{bytes: 103}, false},
		{&memtable{bytes: 10, left: 60, over: 30}, &memtable{bytes: 300}, &memtable{}, true},
		{&memtable{bytes: 100}, &memtable{bytes: 100, left: 103}, &memtable{over: 100}, false},
	} {
		l := newLayers(c.active, []frozen{{memtable: c.first}, {memtable: c.second}})
		if got := l.behind(); got != c.want {
			t.Errorf("%d behind %d and %d: %v", c.active.taken(), c.first.taken(), c.second.taken(), got)
		}
	}
	if newLayers(&memtable{bytes: 100}, nil).behind() {
		t.Error("behind with nothing to flush")
	}
}
