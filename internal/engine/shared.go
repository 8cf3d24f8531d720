package engine

import (
	"fmt"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
)

// Shared is what all shards of a process share: one block cache and one cache of open files. The engine's memtables lie
// beside the block cache and are not accounted in it: together they may take half as much again.
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
// A shard's memtables hold up to four times MemTableSize before writers wait, half of the memory for all shards.
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
