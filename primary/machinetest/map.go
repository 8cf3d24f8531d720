package machinetest

import (
	"bytes"
	"encoding/gob"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/understudy-kv/understudy/wire"
)

// Map is a state machine over a Go map. It becomes durable when Flush writes the whole map to one file, which suits small
// states: until then, and after a restart, the log replays the rest. All methods may be called from any goroutine.
type Map struct {
	dir         string
	beforeFlush func() error

	mu struct {
		sync.Mutex
		state   mapState
		durable uint64
	}
}

type mapState struct {
	Data       map[string][]byte
	Generation [16]byte
	Offset     uint64
}

const mapFile = "state"

// OpenMap is an [Opener].
func OpenMap(dir string, beforeFlush func() error, _ func(error)) (*Map, error) {
	m := &Map{dir: dir, beforeFlush: beforeFlush}
	m.mu.state.Data = make(map[string][]byte)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, mapFile))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&m.mu.state); err != nil {
		return nil, err
	}
	m.mu.durable = m.mu.state.Offset
	return m, nil
}

// Position says where the map is.
func (m *Map) Position() (wire.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.positionLocked(), nil
}

func (m *Map) positionLocked() wire.Position {
	return wire.Position{Generation: m.mu.state.Generation, Offset: m.mu.state.Offset}
}

// Durable says up to where the map's file is.
func (m *Map) Durable() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.durable, nil
}

// Apply changes the map and its position under one lock.
func (m *Map) Apply(b wire.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	data := m.mu.state.Data
	err := b.Each(func(op wire.Op) error {
		switch op.Kind {
		case wire.OpPut:
			data[string(op.Key)] = bytes.Clone(op.Value)
		case wire.OpDelete:
			delete(data, string(op.Key))
		case wire.OpDeleteRange:
			maps.DeleteFunc(data, func(k string, _ []byte) bool { return k >= string(op.Key) && k < string(op.Value) })
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.state.Generation, m.mu.state.Offset = b.At.Generation, b.At.Offset
	return nil
}

// Get looks a key up.
func (m *Map) Get(key []byte) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.mu.state.Data[string(key)]
	return v, ok, nil
}

// Len is the number of keys.
func (m *Map) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mu.state.Data)
}

// encode is the map as it is now, and its position.
func (m *Map) encode() ([]byte, wire.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(m.mu.state)
	return b.Bytes(), m.positionLocked(), err
}

// Flush writes the map's file, after the log.
func (m *Map) Flush() error {
	b, at, err := m.encode()
	if err != nil {
		return err
	}
	if err := m.beforeFlush(); err != nil {
		return err
	}
	if err := writeSynced(m.dir, b); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.durable = max(m.mu.durable, at.Offset)
	return nil
}

// Checkpoint writes the map's file into dir.
func (m *Map) Checkpoint(dir string) (wire.Position, error) {
	b, at, err := m.encode()
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = writeSynced(dir, b)
	}
	return at, err
}

// Values copies what is under the keys, so that f may take its time.
func (m *Map) Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error) {
	type stored struct {
		value []byte
		found bool
	}
	m.mu.Lock()
	at, all := m.positionLocked(), make([]stored, len(keys))
	for i, k := range keys {
		v, found := m.mu.state.Data[string(k)] // which nobody changes: Apply puts another one in its place
		all[i] = stored{v, found}
	}
	m.mu.Unlock()
	for i, s := range all {
		if err := f(keys[i], s.value, s.found); err != nil {
			return at, err
		}
	}
	return at, nil
}

// Rewind puts the values over the map and takes it back to at. Nothing is on disk before the end, when all of it is.
func (m *Map) Rewind(at wire.Position, values func(func(wire.Frame) error) error) error {
	m.mu.Lock()
	data := m.mu.state.Data
	err := values(func(f wire.Frame) error {
		for ops := f.Ops(); ops.Next(); {
			if op := ops.Op(); op.Kind == wire.OpPut {
				data[string(op.Key)] = bytes.Clone(op.Value)
			} else {
				delete(data, string(op.Key))
			}
		}
		return nil
	})
	m.mu.state.Generation, m.mu.state.Offset = at.Generation, at.Offset
	m.mu.Unlock()
	if err != nil {
		return err
	}
	b, _, err := m.encode()
	if err == nil {
		err = writeSynced(m.dir, b)
	}
	return err
}

// Close forgets the map.
func (m *Map) Close() error { return nil }

// writeSynced replaces the file in dir so that a crash leaves the old one or the new one.
func writeSynced(dir string, b []byte) error {
	tmp := filepath.Join(dir, mapFile+".tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, mapFile))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
