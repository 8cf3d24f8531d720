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
