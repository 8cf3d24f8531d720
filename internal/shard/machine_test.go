package shard_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// machine is a state machine over a map whose only file is replaced by Flush, on the test's file system.
type machine struct {
	fs          vfs.FS
	dir         string
	beforeFlush func() error
	fail        *atomic.Bool // Apply fails while set

	mu      sync.Mutex
	data    map[string]string
	at      wire.Position
	durable uint64

	quiet atomic.Int32 // how many asked for it and did not release it
}

func (m *machine) Quiet() (release func()) {
	m.quiet.Add(1)
	return func() { m.quiet.Add(-1) }
}

func (m *machine) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d\n", m.at.Generation, m.at.Offset)
	for k, v := range m.data {
		fmt.Fprintf(&b, "%q %q\n", k, v)
	}
	return b.Bytes()
}

func factory(fs vfs.FS, fail *atomic.Bool) shard.Factory {
	return func(e shard.Env) (shard.StateMachine, error) {
		m := &machine{fs: fs, dir: e.Dir, beforeFlush: e.BeforeFlush, fail: fail, data: map[string]string{}}
		if err := fs.MkdirAll(e.Dir, 0o755); err != nil {
			return nil, err
		}
		f, err := fs.Open(fs.PathJoin(e.Dir, "state"))
		if err != nil {
			return m, nil
		}
		defer f.Close()
		all, err := io.ReadAll(f)
		if err != nil {
			return nil, err
		}
		lines := strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")
		gen, offset, _ := strings.Cut(lines[0], " ")
		if m.at.Generation, err = wire.ParseGeneration(gen); err != nil {
			return nil, err
		}
		fmt.Sscan(offset, &m.at.Offset)
		for _, l := range lines[1:] {
			var k, v string
			if _, err := fmt.Sscanf(l, "%q %q", &k, &v); err != nil {
				return nil, err
			}
			m.data[k] = v
		}
		m.durable = m.at.Offset
		return m, nil
	}
}

func (m *machine) Position() (wire.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at, nil
}

func (m *machine) Durable() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.durable, nil
}

func (m *machine) Apply(b wire.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail.Load() {
		return errors.New("apply fails as told")
	}
	m.at = b.At
	return b.Each(func(op wire.Op) error {
		switch op.Kind {
		case wire.OpPut:
			m.data[string(op.Key)] = string(op.Value)
		case wire.OpDelete:
			delete(m.data, string(op.Key))
		}
		return nil
	})
}

func (m *machine) write(dir string) (uint64, error) {
	m.mu.Lock()
	b, offset := m.encode(), m.at.Offset
	m.mu.Unlock()
	tmp := m.fs.PathJoin(dir, "state.tmp")
	f, err := m.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := m.fs.Rename(tmp, m.fs.PathJoin(dir, "state")); err != nil {
		return 0, err
	}
	d, err := m.fs.OpenDir(dir)
	if err != nil {
		return 0, err
	}
	return offset, errors.Join(d.Sync(), d.Close())
}

func (m *machine) Flush() error {
	if err := m.beforeFlush(); err != nil {
		return err
	}
	offset, err := m.write(m.dir)
	if err == nil {
		m.mu.Lock()
		m.durable = max(m.durable, offset)
		m.mu.Unlock()
	}
	return err
}

func (m *machine) Checkpoint(dir string) (wire.Position, error) {
	if err := m.fs.MkdirAll(dir, 0o755); err != nil {
		return wire.Position{}, err
	}
	at, _ := m.Position()
	_, err := m.write(dir)
	return at, err
}

func (m *machine) Close() error { return nil }

// Values and Rewind make it a shard.Rewinder.
func (m *machine) Values(keys [][]byte, f func(key, value []byte, found bool) error) (wire.Position, error) {
	m.mu.Lock()
	at, data := m.at, make(map[string]string, len(m.data))
	for k, v := range m.data {
		data[k] = v
	}
	m.mu.Unlock()
	for _, k := range keys {
		v, ok := data[string(k)]
		if err := f(k, []byte(v), ok); err != nil {
			return at, err
		}
	}
	return at, nil
}

func (m *machine) Rewind(at wire.Position, values func(func(wire.Frame) error) error) error {
	err := values(func(f wire.Frame) error {
		for ops := f.Ops(); ops.Next(); {
			if op := ops.Op(); op.Kind == wire.OpPut {
				m.data[string(op.Key)] = string(op.Value)
			} else {
				delete(m.data, string(op.Key))
			}
		}
		return nil
	})
	m.at = at
	if err == nil {
		_, err = m.write(m.dir)
	}
	return err
}

// plain is a machine that is no shard.Rewinder.
type plain struct{ shard.StateMachine }
