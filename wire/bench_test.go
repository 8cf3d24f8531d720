package wire_test

import (
	"fmt"
	"testing"

	"github.com/understudy-kv/understudy/wire"
)

// loop is the hot path of one frame: built, parsed, checked and walked.
type loop struct {
	b     wire.Builder
	keys  [][]byte
	value []byte
	frame []byte
}

func newLoop(t tb, mutations, value int) *loop {
	l := &loop{value: make([]byte, value)}
	for i := range mutations {
		l.keys = append(l.keys, fmt.Appendf(nil, "key:%012d", i))
	}
	l.frame = append([]byte(nil), l.build(t)...)
	return l
}

func (l *loop) build(t tb) []byte {
	l.b.Reset()
	for _, k := range l.keys {
		m := l.b.Mark()
		l.b.PutParts(k, l.value[:1], l.value[1:])
		l.b.Rollback(m)
		l.b.Put(k, l.value)
		l.b.End()
	}
	raw, err := l.b.Finish(1000, noon)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (l *loop) parse(t tb) wire.Frame {
	f, err := wire.ParseFrame(l.frame)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (l *loop) walk(t tb, f wire.Frame) (n int) {
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	for ops := f.Ops(); ops.Next(); {
		op := ops.Op()
		n += len(op.Key) + len(op.Value)
	}
	return n
}

// TestHotPathAllocatesNothing: a frame costs no allocation on its way through this package (issue "fast from the
// start"). Benchmarks measure it; this test holds it.
func TestHotPathAllocatesNothing(t *testing.T) {
	l := newLoop(t, 64, 64)
	ack, beat := make([]byte, 0, 256), make([]byte, 0, 256)
	chunk := make([]byte, 0, 4096)
	data := make([]byte, 2048)
	for name, f := range map[string]func(){
		"Builder":         func() { l.build(t) },
		"ParseFrame":      func() { l.parse(t) },
		"Ops":             func() { l.walk(t, l.parse(t)) },
		"ParseHeader":     func() { wire.ParseHeader(l.frame) },      //nolint:errcheck // parse checks it
		"ParseHeader cut": func() { wire.ParseHeader(l.frame[:31]) }, //nolint:errcheck // ErrShort
		"Batch.Each": func() {
			wire.Batch{Frames: l.frame}.Each(func(wire.Op) error { return nil }) //nolint:errcheck // Ops checks it
		},
		"AppendAck":       func() { ack = wire.AppendAck(ack[:0], wire.Ack{Received: 3, Applied: 2, Durable: 1}) },
		"ParseAck":        func() { wire.ParseAck(ack[wire.HeaderSize:]) }, //nolint:errcheck // the golden vectors check it
		"AppendHeartbeat": func() { beat = wire.AppendHeartbeat(beat[:0], wire.Heartbeat{Sent: 1}) },
		"AppendChunk":     func() { chunk = wire.AppendChunk(chunk[:0], wire.Chunk{Data: data}) },
	} {
		ack = wire.AppendAck(ack[:0], wire.Ack{})
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations a run, want none", name, n)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	for _, size := range []struct{ mutations, value int }{{1, 64}, {64, 64}, {64, 1024}} {
		l := newLoop(b, size.mutations, size.value)
		f := l.parse(b)
		run := func(name string, op func()) {
			b.Run(fmt.Sprintf("%s/mutations=%d/value=%d", name, size.mutations, size.value), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(l.frame)))
				for b.Loop() {
					op()
				}
			})
		}
		run("build", func() { l.build(b) })
		run("parse", func() { l.parse(b) })
		run("walk", func() { l.walk(b, f) })
	}
}

func BenchmarkLineageContains(b *testing.B) {
	var l wire.Lineage
	for i := range 16 {
		l = l.Begin(wire.Generation{byte(i + 1)}, uint64(i*100))
	}
	p := wire.Position{Generation: wire.Generation{16}, Offset: 1600}
	b.ReportAllocs()
	for b.Loop() {
		if !l.Contains(p, 2000) {
			b.Fatal("not contained")
		}
	}
}
