package engine

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
)

// Shared is what all shards of a process share: one block cache and one cache of open files. Memtables are accounted
// in the block cache, so memory bounds both together as long as flushes keep up.
type Shared struct {
	cache    *pebble.Cache
	files    *pebble.FileCache
	memtable int
}

// Bounds of a memtable, and of the file cache, in bytes and files.
const (
	minMemTable = 1 << 20
	maxMemTable = 64 << 20
	minFiles    = 128
	maxFiles    = 4096
)

// NewShared makes caches for the given number of shards out of memory bytes (at least 4 MiB a shard are used, however
// little is asked for). Close it after the last engine that uses it.
//
// Pebble keeps up to two memtables a shard (one in use, one to recycle) outside of flushes and reserves them in the
// block cache, which becomes useless, silently, when they take all of it. So memtables get a quarter of the memory.
func NewShared(memory int64, shards int) *Shared {
	memory = max(memory, int64(shards)*4*minMemTable)
	memtable := min(max(memory/int64(shards)/8, minMemTable), maxMemTable)
	return &Shared{
		cache:    pebble.NewCache(memory),
		files:    pebble.NewFileCache(runtime.GOMAXPROCS(0), min(max(shards*minFiles, 2*minFiles), maxFiles)),
		memtable: int(memtable),
	}
}

// MemTableSize is the size of a memtable, in bytes, that fits the memory given to NewShared.
func (s *Shared) MemTableSize() int { return s.memtable }

// Memory is the block cache's size in bytes, memtables included, and how much of it blocks use now.
func (s *Shared) Memory() (size, used int64) { return s.cache.MaxSize(), s.cache.Metrics().Size }

// String tells the sizes, for a log line.
func (s *Shared) String() string {
	return fmt.Sprintf("cache %d bytes, memtables %d bytes each", s.cache.MaxSize(), s.memtable)
}

// Close gives the caches back.
func (s *Shared) Close() {
	s.files.Unref()
	s.cache.Unref()
}
