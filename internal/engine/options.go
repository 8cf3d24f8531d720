package engine

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/understudy-kv/understudy/internal/polite"
)

// layoutVersion is the version of the key and record layout in doc.go.
const layoutVersion = 1

// formatMajor is the format of Pebble's own files. Value separation is not used, but a store that has this format can
// begin to use it without any change of format.
const formatMajor = pebble.FormatValueSeparation

// Format is the number of the storage format, for the handshake: a replica loads checkpoint files of its own number
// and of lower ones. It is the layout's version and Pebble's format.
const Format = uint32(layoutVersion)<<16 | uint32(formatMajor)

// Options configure an [Engine]. The zero value works in memory-only tests as far as FS and Shared are set.
type Options struct {
	// FS is where files live; nil is the operating system's. Tests give a crashable or failing one.
	FS vfs.FS
	// Shared are the process's caches. nil makes small caches of this engine's own, which Close gives back.
	Shared *Shared
	// MemTableSize is in bytes; 0 is what Shared says. A memtable is handed to Pebble when it has three times as much, and Apply
	// waits while all of them have five times as much.
	MemTableSize int
	Tuning
	// Logger gets the engine's messages; nil is silent.
	Logger hclog.Logger
	// BeforeFlush is called before anything that was applied becomes durable here. It must return only when the log
	// holds, durably, everything that was applied before the call. While it returns an error nothing is flushed and it
	// is called again. It runs on a goroutine of the engine's, without locks held, and must not call the engine. nil does nothing.
	BeforeFlush func() error
	// OnError is told, as a *[Fault], what went wrong behind the caller's back. It runs on any goroutine, possibly with
	// Pebble's locks held: it must neither block nor call the engine. nil does nothing.
	OnError func(error)
}

// Tuning is for tests, which have little data: what the engine does with much is to happen with that, too.
type Tuning struct {
	// Logged is the size in bytes from which on a value is left in the log that ApplyLogged is given. Default: 512.
	Logged int
	// WholeFlush is the size in bytes of what Pebble has from which on a flush may write everything anew, where that is
	// cheaper. Default: 64 MiB.
	WholeFlush int64
	// Staged is the size in bytes of what a table of a flush takes in, from which on there may be two instead. Default: 12 MiB.
	Staged int64
}

// EnsureDefaults fills in what is not set, except Shared.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTableSize == 0 && o.Shared != nil {
		o.MemTableSize = o.Shared.MemTableSize()
	}
	if o.Logged == 0 {
		o.Logged = defaultLogged
	}
	if o.WholeFlush == 0 {
		o.WholeFlush = 64 << 20
	}
	if o.Staged == 0 {
		o.Staged = 12 << 20
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.BeforeFlush == nil {
		o.BeforeFlush = func() error { return nil }
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	if o.MemTableSize != 0 && (o.MemTableSize < minMemTable/4 || o.MemTableSize > 1<<30) {
		errs = append(errs, fmt.Errorf("engine: a memtable of %d bytes; give %d to %d, or 0 for the default", o.MemTableSize, minMemTable/4, 1<<30))
	}
	return errors.Join(errs...)
}

// level0Flushes is how many flushes wait in level 0, until a compaction takes them out.
const level0Flushes = 8

// pebbleOptions are the options every engine opens Pebble with, a checkpoint's reader included. Who writes tables begins as the worker.
func pebbleOptions(o Options, fs vfs.FS, worker polite.Worker) *pebble.Options {
	p := &pebble.Options{
		FS:                 fs,
		Cache:              o.Shared.cache,
		FileCache:          o.Shared.files,
		FormatMajorVersion: formatMajor,
		DisableWAL:         true,
		// Nothing is written through Pebble's own memtable.
		MemTableSize: 64 << 10,
		// Apply waits by its own rule (admit.go), which can be interrupted, long before Pebble would stop writers.
		MemTableStopWritesThreshold: 1000,
		L0StopWritesThreshold:       1000,
		// Each compaction of level 0 rewrites all that the first level below has of the same keys. A lookup of a key
		// that is not in memory opens an iterator for each flush that waits and asks its filter, so not more than so many wait
		// (Pebble counts each twice), or as many as have so many tables.
		L0CompactionThreshold:     2 * level0Flushes,
		L0CompactionFileThreshold: 16 * level0Flushes,
		// One level for up to so many bytes is written less often than two: up to five times what level 0 brings at once.
		LBaseMaxBytes: max(1<<30, 5*level0Flushes*rotateMemTables*int64(o.MemTableSize)),
		// One compaction at a time, two when it falls behind: clients share the cores.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		// A FLUSHALL gives its disk space back within this time even if nothing else is written.
		FlushDelayDeleteRange: flushDelay,
		BytesPerSync:          1 << 20,
	}
	p.TargetFileSizes[0] = 4 << 20
	// A table to ingest waits for nothing.
	p.Experimental.DisableIngestAsFlushable = func() bool { return true }
	// Reading decides nothing about compactions: the same writes give the same files.
	p.Experimental.ReadSamplingMultiplier = -1
	for i := range p.Levels {
		l := &p.Levels[i]
		l.BlockSize = 8 << 10
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = politeFilter{bloom.FilterPolicy(10), worker}
		l.FilterType = pebble.TableFilter
		l.Compression = func() *sstable.CompressionProfile { return sstable.FastestCompression }
	}
	// What lies there is rewritten soon.
	p.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	return p
}
