package engine

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-kv/understudy/internal/polite"
)

// Shared is what all shards of a process share: one block cache and one cache of open files, within one bound of memory
// that the engines' memtables keep to as well.
type Shared struct {
	memory   int64
	cache    *pebble.Cache
	files    *pebble.FileCache
	memtable int
	budget   *polite.Budget // of flushes and compactions
}

// Bounds of a memtable, and of the file cache, in bytes and files.
const (
	minMemTable = 1 << 20
	maxMemTable = 128 << 20
	minFiles    = 128
	maxFiles    = 4096
	// besides is what a process needs that does not depend on how much it may have: where that is little, up to a quarter of it.
	besides = 16 << 20
)

// NewShared makes caches for the given number of shards out of memory bytes (at least 8 MiB a shard are used, however
// little is asked for). Close it after the last engine that uses it.
//
// Some 16 MiB are left to what else a process needs. Of the others memtables may hold five eighths before writers wait, five times
// MemTableSize a shard, if none is at its bounds. The block cache has an eighth, or what is left of three quarters; the rest is for
// what is under way, and for the garbage collector, which would run all the time if everything were in use.
//
// background is how many processors flushes and compactions take together while nobody waits for them; 0 is half of what
// there are.
func NewShared(memory int64, shards int, background float64) *Shared {
	if background == 0 {
		background = float64(runtime.GOMAXPROCS(0)) / 2
	}
	memory = max(memory, int64(shards)*8*minMemTable)
	room := memory - min(memory/4, besides)
	memtable := min(max(room/int64(shards)/8, minMemTable), maxMemTable)
	return &Shared{
		memory:   memory,
		cache:    pebble.NewCache(max(room-room/4-int64(shards)*stopMemTables*memtable, room/8)),
		files:    pebble.NewFileCache(runtime.GOMAXPROCS(0), min(max(shards*minFiles, 2*minFiles), maxFiles)),
		memtable: int(memtable),
		budget:   polite.NewBudget(background),
	}
}

// MemTableSize is the size of a memtable, in bytes, that fits the memory given to NewShared.
func (s *Shared) MemTableSize() int { return s.memtable }

// Memory is what caches and memtables may take, in bytes, and what blocks take now.
func (s *Shared) Memory() (size, used int64) { return s.memory, s.cache.Metrics().Size }

// String tells the sizes, for a log line.
func (s *Shared) String() string {
	return fmt.Sprintf("cache %d bytes, memtables %d bytes each", s.cache.MaxSize(), s.memtable)
}

// Close gives the caches back.
func (s *Shared) Close() {
	s.files.Unref()
	s.cache.Unref()
}
