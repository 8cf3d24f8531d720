package engine

import "github.com/cockroachdb/pebble/v2"

// Metrics are figures for INFO and for the metrics page. Bytes and counts are of this engine only.
type Metrics struct {
	DiskBytes       uint64 // of all files, those waiting for deletion included
	MemTableBytes   uint64
	Tables          int64
	L0Files         int64
	ReadAmp         int    // places that a lookup may have to ask
	Flushes         int64  // since Open
	Compactions     int64  // since Open
	CompactionDebt  uint64 // bytes that compactions have yet to rewrite, estimated
	CompactionBytes uint64 // written by compactions and flushes since Open
	CacheHits       int64  // of the shared block cache
	CacheMisses     int64
	OpenFiles       int64 // in the shared file cache
}

// Metrics returns the figures of now. It can take as long as the disk does for a small write. Behind the fence there are
// none: the error is [ErrFenced].
func (e *Engine) Metrics() (Metrics, error) {
	if err := e.enter(); err != nil {
		return Metrics{}, err
	}
	defer e.exit()
	var p *pebble.Metrics
	if err := e.unlessFenced(func() error { p = e.db.Metrics(); return nil }); err != nil {
		return Metrics{}, err
	}
	total := p.Total()
	return Metrics{
		DiskBytes:       p.DiskSpaceUsage(),
		MemTableBytes:   e.memTableBytes(),
		Tables:          total.TablesCount,
		L0Files:         p.Levels[0].TablesCount,
		ReadAmp:         p.ReadAmp(),
		Flushes:         p.Flush.Count + e.flusher.count.Load(),
		Compactions:     p.Compact.Count,
		CompactionDebt:  p.Compact.EstimatedDebt,
		CompactionBytes: total.TableBytesFlushed + total.TableBytesIngested + total.TableBytesCompacted,
		CacheHits:       p.BlockCache.Hits,
		CacheMisses:     p.BlockCache.Misses,
		OpenFiles:       p.FileCache.TableCount,
	}, nil
}

func (e *Engine) memTableBytes() uint64 {
	e.write.Lock()
	defer e.write.Unlock()
	return uint64(e.layers.Load().bytes())
}
