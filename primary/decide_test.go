package primary

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/understudy-kv/understudy/wire"
)

// TestDecide replays the stories in testdata/decide; -rewrite records them anew. A generation is written as one letter.
//
//	primary [cluster=c] [shards=n] [shard=n] [format=n] lineage=(a@0,b@100) published=n oldest=n group=n
//	        [follows=streaming|down] [unsettled] [mixed] [novalues] [path=(n,n)]
//	hello [position=a:5] [lineage=(a@0)] [settles=a:5] [difference] [shards=n] [shard=n] [cluster=c] [format=n] [version=n] [node=n] [replica=n] [auth=no]
//
// A shard can tell what it has under single keys, unless it says novalues.
// Every frame of the primary's log holds `group` mutations.
func TestDecide(t *testing.T) {
	datadriven.Walk(t, "testdata/decide", func(t *testing.T, path string) {
		var f Facts
		var oldest, group uint64
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "primary":
				f = Facts{Node: wire.ID{1}, Shards: 4, Streaming: true, Values: true}
				oldest, group = 0, 1
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "cluster":
						f.Cluster = a.Vals[0]
					case "shards":
						f.Shards = uint32(number(t, a.Vals[0]))
					case "shard":
						f.Shard = uint32(number(t, a.Vals[0]))
					case "format":
						f.Format = uint32(number(t, a.Vals[0]))
					case "published":
						f.Published = number(t, a.Vals[0])
					case "oldest":
						oldest = number(t, a.Vals[0])
					case "group":
						group = number(t, a.Vals[0])
					case "follows":
						f.Following, f.Streaming = true, a.Vals[0] == "streaming"
					case "path":
						for _, id := range a.Vals {
							f.Path = append(f.Path, wire.ID{byte(number(t, id))})
						}
					case "lineage":
						f.Lineage = lineage(t, a.Vals)
					case "unsettled":
						f.Unsettled = true
					case "mixed":
						f.Mixed = true
					case "novalues":
						f.Values = false
					default:
						d.Fatalf(t, "unknown argument %s", a.Key)
					}
				}
				return fmt.Sprintf("at %d, log from %d", f.Published, oldest)
			case "hello":
				f.Auth = nil
				h := wire.Hello{Version: wire.Version, Replica: wire.ID{2}, Nonce: wire.ID{3}, Node: wire.ID{4}, Cluster: f.Cluster, Shard: f.Shard}
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "position":
						h.Position = position(t, a.Vals[0])
						h.Shards = f.Shards
					case "settles":
						h.Settles = position(t, a.Vals[0])
					case "lineage":
						h.Lineage = lineage(t, a.Vals)
					case "difference":
						h.Capabilities |= wire.CapDifference
					case "shards":
						h.Shards = uint32(number(t, a.Vals[0]))
					case "shard":
						h.Shard = uint32(number(t, a.Vals[0]))
					case "cluster":
						h.Cluster = a.Vals[0]
					case "format":
						h.Format = uint32(number(t, a.Vals[0]))
					case "version":
						h.Version = uint16(number(t, a.Vals[0]))
					case "node":
						h.Node = wire.ID{byte(number(t, a.Vals[0]))}
					case "replica":
						h.Replica = wire.ID{byte(number(t, a.Vals[0]))}
					case "snapshot":
						h.Snapshot = wire.ID{byte(number(t, a.Vals[0]))}
					case "auth":
						f.Auth = errors.New("user \"x\" is not known or the password is wrong")
					default:
						d.Fatalf(t, "unknown argument %s", a.Key)
					}
				}
				o := h.Position.Offset
				if fork, ok := Fork(h, f.Lineage, f.Published, f.Following); ok {
					o = fork.Offset
				}
				switch f.Hold = Held; {
				case o > f.Published:
					f.Hold = Beyond
				case o < oldest:
					f.Hold = Evicted
				case o%group != 0:
					f.Hold = Misaligned
				}
				return Decide(h, f).String()
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lineage(t *testing.T, epochs []string) (l wire.Lineage) {
	t.Helper()
	for _, e := range epochs {
		p := position(t, strings.Replace(e, "@", ":", 1))
		l = append(l, wire.Epoch{Generation: p.Generation, First: p.Offset})
	}
	return l
}

func position(t *testing.T, s string) wire.Position {
	t.Helper()
	g, o, _ := strings.Cut(s, ":")
	return wire.Position{Generation: wire.Generation{g[0]}, Offset: number(t, o)}
}
