package keyspace_test

import (
	"fmt"
	"testing"

	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/keyspace/kstest"
	"github.com/understudy-kv/understudy/internal/resp"
)

// discard is a sink that forgets.
type discard struct{ w resp.Writer }

func (d *discard) Writer() *resp.Writer { return &d.w }
func (d *discard) Flush() error         { d.w.Buf = d.w.Buf[:0]; return nil }
func (d *discard) Send([]byte) error    { return d.Flush() }

func pipeline(name string, n int) [][][]byte {
	value := make([]byte, 64)
	cmds := make([][][]byte, n)
	for i := range cmds {
		cmds[i] = [][]byte{[]byte(name), []byte(fmt.Sprintf("key:%d", i))}
		if name == "SET" {
			cmds[i] = append(cmds[i], value)
		}
	}
	return cmds
}

// ops of one command each; B/op and allocs/op are of the router alone for GET, with log and engine for SET.
func BenchmarkPipeline(b *testing.B) {
	for _, name := range []string{"GET", "SET"} {
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				k := keyspace.New(keyspace.Options{})
				k.SetShards(kstest.Shards(b, 2, nil, nil))
				s := k.NewSession(nil)
				defer s.Close()
				cmds := pipeline(name, n)
				var out discard
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; i += n {
					if _, err := s.Exec(cmds, &out); err != nil {
						b.Fatal(err)
					}
					_ = out.Flush()
				}
			})
		}
	}
}

// A pipeline of commands that one shard answers allocates nothing once its buffers have grown.
func TestExecAllocatesNothing(t *testing.T) {
	k := open(t, 2, keyspace.Options{})
	s := k.NewSession(nil)
	defer s.Close()
	var out discard
	for _, name := range []string{"SET", "GET"} {
		cmds := pipeline(name, 64)
		one := func() {
			if _, err := s.Exec(cmds, &out); err != nil {
				t.Fatal(err)
			}
			_ = out.Flush()
		}
		for range 100 {
			one()
		}
		// Pools may be emptied, and the engine allocates for its own work, now and then: less than one a command by far.
		if n := testing.AllocsPerRun(200, one); n > 16 {
			t.Errorf("%s: %v allocations a pipeline of %d", name, n, len(cmds))
		}
	}
}
