package machinetest

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/understudy-kv/understudy/wire"
)

// rewinder is the machine in dir, if it can rejoin by difference; otherwise the case is skipped.
func (s *suite) rewinder(dir string) Rewinder {
	s.Helper()
	m := s.machine(dir)
	r, ok := m.(Rewinder)
	if !ok {
		s.must(m.Close())
		s.Skip("the machine is no Rewinder: a replica that has diverged is synced in full")
	}
	return r
}

// values is one values frame: under each key its value, or nothing.
func (s *suite) values(b *wire.Builder) wire.Frame {
	s.Helper()
	raw, err := b.FinishValues()
	s.must(err)
	f, err := wire.ParseFrame(raw)
	s.must(err)
	return f
}

func (s *suite) valuesAreOfOnePosition() {
	m := s.rewinder(filepath.Join(s.TempDir(), "m"))
	for i := range uint64(20) {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), fmt.Appendf(nil, "v%d", i)) })
	}
	s.apply(m, 20, func(b *wire.Builder) { b.Delete(s.key(3)); b.Put(s.key(4), nil) })
	keys, want := [][]byte{}, []string{}
	for _, i := range []int{19, 3, 0, 99, 4, 7, 0} { // in no order, one twice, one that never was
		keys = append(keys, s.key(i))
		switch i {
		case 3, 99:
			want = append(want, "none")
		case 4:
			want = append(want, "")
		default:
			want = append(want, fmt.Sprint("v", i))
		}
	}
	var got []string
	var writes sync.WaitGroup
	at, err := m.Values(keys, func(key, value []byte, found bool) error {
		if len(got) == 0 {
			// Writes go on beside it; they are waited for here, so that one which is held up is noticed.
			writes.Go(func() {
				for i := range uint64(20) {
					s.apply(m, 21+i, func(b *wire.Builder) { b.Put(s.key(int(i)), []byte("later")) })
				}
			})
			writes.Wait()
		}
		if n := len(got); n >= len(keys) || string(key) != string(keys[n]) {
			s.Errorf("call %d is about %q", n, key)
		}
		if !found {
			value = []byte("none")
		}
		got = append(got, string(value))
		return nil
	})
	s.must(err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("the values are %q, want %q", got, want)
	}
	if at != (wire.Position{Generation: generation, Offset: 21}) {
		s.Errorf("they are said to be of %s, want offset 21", at)
	}
	s.wantOffset(m, 41)
	calls, stop := 0, errors.New("no more")
	if _, err := m.Values(keys, func([]byte, []byte, bool) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		s.Errorf("%d calls and %v behind the first error", calls, err)
	}
	s.must(m.Close())
}

func (s *suite) rewindGoesBack() {
	m := s.rewinder(filepath.Join(s.TempDir(), "m"))
	for i := range uint64(30) {
		s.apply(m, i, func(b *wire.Builder) { b.Put(s.key(int(i)), fmt.Appendf(nil, "v%d", i)) })
	}
	dir := filepath.Join(s.TempDir(), "back")
	_, err := m.Checkpoint(dir)
	s.must(err)
	s.must(m.Close())
	fork := wire.Position{Generation: generation, Offset: 25}
	back := s.rewinder(dir)
	s.must(back.Rewind(fork, func(each func(wire.Frame) error) error {
		var b wire.Builder
		for i := 25; i < 30; i++ { // a frame each, in which what was put is gone
			b.Reset()
			b.Delete(s.key(i))
			if i == 27 {
				b.Put(s.key(1), []byte("theirs"))
				b.Put(s.key(40), []byte("new"))
			}
			if err := each(s.values(&b)); err != nil {
				return err
			}
		}
		return nil
	}))
	s.must(back.Close())
	again := s.machine(dir)
	s.wantOffset(again, 25)
	durable, err := again.Durable()
	s.must(err)
	if durable != 25 {
		s.Errorf("durable up to %d, want 25", durable)
	}
	s.want(again, s.key(0), "v0", true)
	s.want(again, s.key(1), "theirs", true)
	s.want(again, s.key(24), "v24", true)
	for i := 25; i < 30; i++ {
		s.want(again, s.key(i), "", false)
	}
	s.want(again, s.key(40), "new", true)
	s.apply(again, 25, func(b *wire.Builder) { b.Put(s.key(26), []byte("from the fork on")) })
	s.wantOffset(again, 26)
	s.want(again, s.key(26), "from the fork on", true)
	_, err = again.Checkpoint(filepath.Join(filepath.Dir(dir), "broken"))
	s.must(err)
	s.must(again.Close())
	broken := s.rewinder(filepath.Join(filepath.Dir(dir), "broken"))
	stop := errors.New("the connection is gone")
	if err := broken.Rewind(fork, func(func(wire.Frame) error) error { return stop }); !errors.Is(err, stop) {
		s.Errorf("a rewind whose values end with an error gave %v", err)
	}
	s.must(broken.Close())
}
