package primary

import (
	"encoding/binary"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/wire"
)

// tree is a set of nodes whose true histories are known: every mutation has an identity of its own.
type tree struct {
	nodes   []*treeNode
	written map[wire.Generation][]int // everything that was ever written in a generation
	first   map[wire.Generation]uint64
	ids     int
}

type treeNode struct {
	lineage   wire.Lineage
	data      []int
	following bool
}

func (w *tree) generation(n *treeNode, first int) {
	w.ids++
	var g wire.Generation
	binary.BigEndian.PutUint32(g[:], uint32(w.ids))
	w.first[g] = uint64(first)
	n.lineage, n.following = n.lineage.Begin(g, uint64(first)), false
}

// history is everything on the lineage, its last generation to the end that it ever had.
func (w *tree) history(l wire.Lineage) (all []int) {
	for i, e := range l {
		wrote := w.written[e.Generation]
		if i+1 < len(l) {
			wrote = wrote[:l[i+1].First-e.First]
		}
		all = append(all, wrote...)
	}
	return all
}

func common(a, b []int) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// expect is the verdict on j's HELLO to i, from what they truly have.
func (w *tree) expect(i, j *treeNode, oldest int) string {
	have := i.data
	if i.following {
		have = w.history(i.lineage)
	}
	fork, at := common(have, j.data), len(j.data)
	switch {
	case i.lineage[0].Generation != j.lineage[0].Generation:
		return "fullsync unknown-generation"
	case fork > len(i.data):
		return "refuse behind"
	case fork == at && at < oldest:
		return "fullsync evicted"
	case fork == at:
		return fmt.Sprint("resume ", at)
	case fork == 0 && len(i.data) == 0 || fork < oldest:
		return "fullsync diverged"
	}
	return fmt.Sprint("rewind ", fork)
}

func (w *tree) decide(i, j *treeNode, oldest int) string {
	at := uint64(len(j.data))
	h := wire.Hello{
		Version: wire.Version, Capabilities: wire.CapDifference, Replica: wire.ID{2}, Nonce: wire.ID{3}, Node: wire.ID{4},
		Position: j.lineage.At(at), Lineage: j.lineage.Until(at),
	}
	f := Facts{
		Node: wire.ID{1}, Lineage: i.lineage, Published: uint64(len(i.data)), Following: i.following, Streaming: true, Values: true,
	}
	if fork, ok := Fork(h, f.Lineage, f.Published, f.Following); ok && fork.Offset < uint64(oldest) {
		f.Hold = Evicted
	} else if fork.Offset > f.Published {
		f.Hold = Beyond
	}
	switch v := Decide(h, f); v.Action {
	case Resume:
		if !i.lineage.Contains(v.Position, f.Published) {
			return fmt.Sprintf("%s, which is not on %s", v, i.lineage)
		}
		return fmt.Sprint("resume ", v.Position.Offset)
	case Rewind:
		if !i.lineage.Contains(v.Position, f.Published) || !j.lineage.Contains(v.Position, at) {
			return fmt.Sprintf("%s, which is not on both lineages", v)
		}
		return fmt.Sprint("rewind ", v.Position.Offset)
	case FullSync:
		return "fullsync " + string(v.Reason)
	default:
		return "refuse " + string(v.Code)
	}
}

// TestDecideAgainstHistories grows trees of histories by random writes, copies, promotions and losses of a tail, and holds
// Decide against what the nodes truly have: a replica resumes if and only if its data is the beginning of the primary's and
// is held, and a fork is the longest common beginning (pitfalls 2, 6, 7, 9).
func TestDecideAgainstHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &tree{written: map[wire.Generation][]int{}, first: map[wire.Generation]uint64{}}
		root := func() *treeNode {
			n := &treeNode{}
			w.generation(n, 0)
			return n
		}
		w.nodes = []*treeNode{root(), root()}
		pick := func(t *rapid.T) *treeNode { return rapid.SampledFrom(w.nodes).Draw(t, "node") }
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n := pick(t)
				if n.following {
					t.Skip("it follows")
				}
				for range rapid.IntRange(1, 4).Draw(t, "mutations") {
					w.ids++
					n.data = append(n.data[:len(n.data):len(n.data)], w.ids)
					g := n.lineage.Current()
					w.written[g] = append(w.written[g], w.ids)
				}
			},
			"replicate": func(t *rapid.T) {
				from := pick(t)
				n := rapid.IntRange(0, len(from.data)).Draw(t, "offset")
				w.nodes = append(w.nodes, &treeNode{lineage: from.lineage, data: from.data[:n:n], following: true})
			},
			"promote": func(t *rapid.T) {
				n := pick(t)
				w.generation(n, len(n.data))
			},
			"demote": func(t *rapid.T) { pick(t).following = true },
			"lose": func(t *rapid.T) { // as a loss of power does
				n := pick(t)
				at := rapid.IntRange(0, len(n.data)).Draw(t, "offset")
				n.data = n.data[:at:at]
				w.generation(n, at)
			},
			"forget": func(t *rapid.T) {
				if len(w.nodes) > 6 {
					w.nodes = w.nodes[len(w.nodes)-6:]
				}
			},
			"": func(t *rapid.T) {
				i, j := pick(t), pick(t)
				oldest := rapid.IntRange(0, len(i.data)).Draw(t, "oldest")
				if got, want := w.decide(i, j, oldest), w.expect(i, j, oldest); got != want {
					t.Fatalf("%s, want %s\nnode at %d, log from %d, following %v: %s\nreplica at %d: %s",
						got, want, len(i.data), oldest, i.following, i.lineage, len(j.data), j.lineage)
				}
			},
		})
	})
}
