package engine

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestSpare: a memtable of an engine takes the chunk that was made ahead, each of them once, and what is put into it is there.
func TestSpare(t *testing.T) {
	var s spare
	m := newMemtable(1, 0, nil, 0)
	m.spare = &s
	key := append([]byte{prefixData}, make([]byte, 12)...)
	value := bytes.Repeat([]byte("v"), 4000)
	seen := map[*byte]bool{}
	ahead := 0
	for i := range 8 << 20 / len(value) { // chunks of 1 MiB, behind the small ones
		var next *byte
		if c := s.chunk.Load(); c != nil {
			next = &(*c)[0]
		}
		binary.BigEndian.PutUint64(key[5:], uint64(i))
		before := len(*m.chunks.Load())
		m.put(hashKey(key), key, value, false)
		chunks := *m.chunks.Load()
		for _, c := range chunks[before:] {
			if seen[&c[0]] {
				t.Fatal("a chunk came twice")
			}
			seen[&c[0]] = true
			if len(c) < maxChunk {
				continue
			}
			if next == &c[0] {
				ahead++
			} else if next != nil {
				t.Fatal("the chunk that was ready was not taken")
			}
			if s.fills.Wait(); s.chunk.Load() == nil {
				t.Fatal("the next one was not made")
			}
		}
	}
	s.fills.Wait()
	if ahead < 4 {
		t.Fatalf("%d chunks were taken that were ready", ahead)
	}
	for i := range 8 << 20 / len(value) {
		binary.BigEndian.PutUint64(key[5:], uint64(i))
		ref := m.get(hashKey(key), key)
		if ref == 0 || !bytes.HasSuffix(m.at(ref)[:recordHead+len(key)+len(value)], value) {
			t.Fatalf("key %d is not what was put", i)
		}
	}
}
