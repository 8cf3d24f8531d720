package engine

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/polite"
)

// urgent reports whether somebody waits for background work, or soon would: then it takes the processors that it needs.
func (e *Engine) urgent() bool {
	return e.hurries.Load() > 0 || e.closing.Load() || !e.started.Load() || e.pressure.urgent()
}

// gives reports whether background work lets every other thread of the machine come first. Where it falls behind the writes it does not: it
// would get the less, the more there is of them; but for a checkpoint, which somebody waits for who can wait.
func (e *Engine) gives() bool {
	return e.started.Load() && !e.closing.Load() && (e.flusher.briefly.Load() > 0 || !e.pressure.urgent())
}

// Hurry has flushes and compactions take what they need of the processors until release is called: somebody waits for them.
func (e *Engine) Hurry() (release func()) {
	e.hurries.Add(1)
	return sync.OnceFunc(func() { e.hurries.Add(-1) })
}

// worker is the state of a goroutine of the engine's that works in the background.
func (e *Engine) worker() polite.Worker {
	return polite.Worker{Budget: e.o.Shared.budget, Urgent: e.urgent, Gives: e.gives}
}

// politeFilter is a filter policy whose writers let clients have the processor now and then. Who builds a table, a flush or a
// compaction, tells the filter of every key: it is the one call of ours in Pebble's loops.
type politeFilter struct {
	pebble.FilterPolicy
	worker polite.Worker // what each writer begins as
}

// NewWriter implements pebble.FilterPolicy.
func (p politeFilter) NewWriter(t pebble.FilterType) pebble.FilterWriter {
	return &politeWriter{FilterWriter: p.FilterPolicy.NewWriter(t), worker: p.worker}
}

// keysATurn is after how many keys the clock is looked at.
const keysATurn = 32

type politeWriter struct {
	pebble.FilterWriter
	keys   uint
	worker polite.Worker
}

// AddKey implements pebble.FilterWriter.
func (w *politeWriter) AddKey(key []byte) {
	w.FilterWriter.AddKey(key)
	if w.keys++; w.keys%keysATurn == 0 {
		w.worker.Yield()
	}
}
