package engine

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/polite"
)

// politeFilter is a filter policy whose writers let clients have the processor now and then. Who builds a table, a flush or a
// compaction, tells the filter of every key: it is the one call of ours in Pebble's loops.
type politeFilter struct{ pebble.FilterPolicy }

// NewWriter implements pebble.FilterPolicy.
func (p politeFilter) NewWriter(t pebble.FilterType) pebble.FilterWriter {
	return &politeWriter{FilterWriter: p.FilterPolicy.NewWriter(t)}
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
