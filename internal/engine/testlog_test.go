package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// testLog is the log that the rig's batches lie in. What the engine does not need any more is gone at once.
type testLog struct {
	mu     sync.Mutex
	bytes  []byte
	oldest int64 // address
	marks  []logMark
	reads  int
	before func() // called by the next ReadAt, before it looks

	browsed, browsers int // reads by who browses, and how many do now
}

// browsing is who browses the log.
type browsing struct{ l *testLog }

func (l *testLog) Browse() interface {
	io.ReaderAt
	io.Closer
} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.browsers++
	return browsing{l}
}

func (b browsing) ReadAt(p []byte, addr int64) (int, error) {
	n, err := b.l.ReadAt(p, addr)
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	b.l.browsed++
	return n, err
}

func (b browsing) Close() error {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	b.l.browsers--
	return nil
}

// logMark says that the batch which begins at offset lies at addr.
type logMark struct {
	offset uint64
	addr   int64
}

var errTrimmed = errors.New("trimmed")

// append takes a batch's frames and returns their address.
func (l *testLog) append(b wire.Batch) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = append(l.bytes, "header"...) // as between two segments
	addr := int64(len(l.bytes))
	l.bytes = append(l.bytes, b.Frames...)
	l.marks = append(l.marks, logMark{b.First, addr})
	return addr
}

// trim forgets what lies before the offset.
func (l *testLog) trim(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.marks) > 1 && l.marks[1].offset <= before {
		l.marks = l.marks[1:]
		clear(l.bytes[l.oldest:l.marks[0].addr])
		l.oldest = l.marks[0].addr
	}
}

// ReadAt implements io.ReaderAt.
func (l *testLog) ReadAt(p []byte, addr int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.before; f != nil {
		l.before = nil
		l.mu.Unlock()
		f()
		l.mu.Lock()
	}
	l.reads++
	if addr < l.oldest {
		return 0, fmt.Errorf("%w: address %d, the oldest is %d", errTrimmed, addr, l.oldest)
	}
	return copy(p, l.bytes[addr:addr+int64(len(p))]), nil
}

// apply applies the batch as a shard does, and trims the log.
func (r *rig) apply(b wire.Batch) error {
	if err := r.e.ApplyLogged(b, r.log, r.log.append(b)); err != nil {
		return err
	}
	durable, err := r.e.Durable()
	if err != nil {
		return err
	}
	needs, err := r.e.NeedsLog()
	if err == nil {
		r.log.trim(min(durable, needs))
	}
	return err
}

// A large value is left in the log, where point reads, walks, views and the flusher find it; a small one is not. What was
// overwritten is not counted. Once it is flushed the log is not needed, but for a view that is older.
func TestLogged(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 100}})
	large := func(i int) string { return fmt.Sprintf("%0100d", i) }
	r.set("small", "value")
	for i := range 5 {
		r.set("key", large(i))
		r.commit()
	}
	if live, over := r.e.LeftInLog(); live != 102 || over != 4*102 { // a record's head has two bytes
		t.Fatalf("%d bytes are in the log, and %d were, want one value of 102 and 4 times that", live, over)
	}
	before := r.log.reads
	r.want("small", "value")
	if r.log.reads != before {
		t.Fatal("a small value was read from the log")
	}
	r.want("key", large(4))
	if r.log.reads != before+1 {
		t.Fatalf("a large value was read from the log %d times, want once", r.log.reads-before)
	}
	if needs, err := r.e.NeedsLog(); err != nil || needs != 0 {
		t.Fatalf("the log is needed from %d on, want 0 (%v)", needs, err)
	}
	v, err := r.e.NewView()
	r.must(err)
	r.must(r.e.Flush())
	if live, over := r.e.LeftInLog(); live != 0 || over != 0 {
		t.Fatalf("%d bytes are in the log after a flush, and %d were", live, over)
	}
	if l := r.log; l.browsed != 1 || l.browsers != 0 {
		t.Fatalf("the flusher, which reads many values, has browsed for %d, want the one that is left, and %d of it still do", l.browsed, l.browsers)
	}
	r.set("key", large(9))
	r.commit()
	if needs, err := r.e.NeedsLog(); err != nil || needs != 0 {
		t.Fatalf("the log is needed from %d on, want 0 for the view (%v)", needs, err)
	}
	if rec, ok, err := v.Get([]byte("key"), r.now); err != nil || !ok || string(rec.Value) != large(4) {
		t.Fatalf("the view has %.20q, %v, want %.20q (%v)", rec.Value, ok, large(4), err)
	}
	r.must(v.Close())
	if needs, err := r.e.NeedsLog(); err != nil || needs != r.next-1 {
		t.Fatalf("the log is needed from %d on, want %d (%v)", needs, r.next-1, err)
	}
	r.want("key", large(9))
}

// Who walks over keys reads no value from the log: what a key is, and until when, stands in the memtable.
func TestWalksReadNoValue(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1}})
	want := map[string]Record{}
	for i := range 50 {
		key, rec := fmt.Sprint("key", i), Record{Type: TypeString, Value: bytes.Repeat([]byte{'v'}, i*i)}
		if i%3 == 0 {
			rec.Deadline = r.now + int64(i)
		}
		r.mutate(func(tx *Tx) { tx.Set([]byte(key), rec) })
		rec.Value = nil
		want[key] = rec
	}
	r.commit()
	before := r.log.reads
	v, err := r.e.NewView()
	r.must(err)
	got := map[string]Record{}
	take := func(k []byte, rec Record) bool { got[string(k)] = rec; return true }
	check := func(what string) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s gave %v, want %v", what, got, want)
		}
		clear(got)
	}
	r.must(v.Keys(r.now, take))
	check("KEYS")
	_, err = v.Scan(0, 0, Slots, 100, r.now, take)
	r.must(err)
	check("SCAN")
	r.mutate(func(tx *Tx) {
		tx.Keys(take)
		check("KEYS of a transaction")
		tx.Scan(0, 0, Slots, 100, take)
		check("SCAN of a transaction")
	})
	if c, err := v.Count(r.now); err != nil || c.Keys != 50 || c.Deadlines != 17 {
		t.Errorf("%+v (%v), want 50 keys, of which 17 have a deadline", c, err)
	}
	if _, ok, err := v.RandomKey(7, r.now); !ok || err != nil {
		t.Errorf("no random key: %v", err)
	}
	if n := r.log.reads - before; n != 0 {
		t.Errorf("the log was read from %d times", n)
	}
	n := 0
	r.must(eachWhole(v, r.now, func(k []byte, rec Record) bool {
		n += len(rec.Value)
		return true
	}))
	if n != 49*50*99/6 || r.log.reads-before != 50 {
		t.Errorf("%d bytes of values in %d reads, want %d in 50", n, r.log.reads-before, 49*50*99/6)
	}
	r.must(v.Close())
}

// A walk of a transaction keeps the log as a view does, for its length.
func TestWalkPinsTheLog(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1}})
	r.set("key", "value")
	r.commit()
	it, err := r.e.newIter(keyspaceFrom, keyspaceTo)
	r.must(err)
	r.must(r.e.Flush())
	r.set("other", "value")
	r.commit()
	if needs, err := r.e.NeedsLog(); err != nil || needs != 0 {
		t.Errorf("the log is needed from %d on, want 0 (%v)", needs, err)
	}
	if !it.First() {
		t.Fatal("there is no key")
	}
	if v, err := it.ValueAndErr(); err != nil || string(v[2:]) != "value" {
		t.Errorf("%q (%v)", v, err)
	}
	r.must(it.Close())
	if needs, err := r.e.NeedsLog(); err != nil || needs != 1 {
		t.Errorf("the log is needed from %d on, want 1 (%v)", needs, err)
	}
}

// A value that the log gives back otherwise than it took it is never shown: the read fails and says how to go on, writes are refused,
// and no flush hands it on.
func TestLoggedDamage(t *testing.T) {
	var faults []error
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1}, OnError: func(err error) { faults = append(faults, err) }})
	r.set("key", "value")
	r.commit()
	r.log.bytes[len(r.log.bytes)-8] ^= 1
	var reader Reader
	r.must(reader.Begin(r.e, r.now))
	if rec, ok := reader.Get([]byte("key")); ok || !errors.Is(reader.Err(), errDamagedValue) {
		t.Fatalf("got %q, %v and the error %v", rec.Value, ok, reader.Err())
	}
	reader.End()
	if err := r.e.Err(); !errors.Is(err, ErrFenced) || !errors.Is(err, errDamagedValue) {
		t.Fatalf("writes are refused with %v", err)
	}
	if len(faults) != 1 {
		t.Fatalf("%d faults were told, want 1: %v", len(faults), faults)
	}
	if durable, err := r.e.Durable(); err != nil || durable != 0 {
		t.Fatalf("%d is durable (%v)", durable, err)
	}
}

// A value is flushed, and the log trimmed behind that, when a reader has just found out where in the log it is: it has the value all the
// same. What is gone though it was never flushed is an error.
func TestReadMeetsTrim(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1}})
	r.set("key", "value")
	r.commit()
	r.log.before = func() {
		r.must(r.e.Flush())
		r.set("other", "value")
		r.must(r.apply(r.batch()))
		if r.log.oldest == 0 {
			t.Error("nothing was trimmed")
		}
	}
	var reader Reader
	r.must(reader.Begin(r.e, r.now))
	if rec, ok := reader.Get([]byte("key")); !ok || string(rec.Value) != "value" || reader.Err() != nil {
		t.Errorf("got %q, %v (%v)", rec.Value, ok, reader.Err())
	}
	r.log.oldest = int64(len(r.log.bytes))
	if rec, ok := reader.Get([]byte("other")); ok || !errors.Is(reader.Err(), errTrimmed) {
		t.Errorf("got %q, %v (%v) of what the log has lost", rec.Value, ok, reader.Err())
	}
	reader.End()
}

// Readers beside the owner see whole values while these are written over, flushed, and trimmed from the log behind that.
func TestLoggedReaders(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{Tuning: Tuning{Logged: 1}})
	const keys = 20
	value := func(k, n int) string { return fmt.Sprintf("%d of %d", n, k) }
	for k := range keys {
		r.set(fmt.Sprint(k), value(k, 0))
	}
	r.commit()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		// A reader, started here, ends when stop is closed; the test waits for it.
		wg.Go(func() {
			var reader Reader
			var last [keys]int
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k, n, of := i%keys, 0, 0
				if err := reader.Begin(r.e, r.now); err != nil {
					t.Error(err)
					return
				}
				rec, ok := reader.Get([]byte(fmt.Sprint(k)))
				_, err := fmt.Sscanf(string(rec.Value), "%d of %d", &n, &of)
				if !ok || reader.Err() != nil || err != nil || of != k || n < last[k] {
					t.Errorf("key %d has %q, %v after round %d (%v)", k, rec.Value, ok, last[k], reader.Err())
				}
				last[k] = n
				reader.End()
				if t.Failed() {
					return
				}
			}
		})
	}
	for n := 1; n < 300; n++ {
		for k := range keys {
			r.set(fmt.Sprint(k), value(k, n))
		}
		r.commit()
		if n%10 == 0 {
			r.must(r.e.Flush())
		}
	}
	close(stop)
	wg.Wait()
}
