package keyspace_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/command/commandtest"
	"github.com/understudy-kv/understudy/internal/keyspace"
	"github.com/understudy-kv/understudy/internal/resp"
)

// replies cuts what a sink was sent into single replies.
func replies(t *testing.T, sent []byte) (list [][]byte) {
	t.Helper()
	r := resp.NewReader(bytes.NewReader(sent))
	for {
		raw, _, err := r.ReadRaw()
		if err != nil {
			return list
		}
		list = append(list, bytes.Clone(raw))
	}
}

// Pipelines over several shards reply what a twin with one shard replies to the same commands, one at a time: whatever
// is split, merged, held, queued or sent side by side makes no difference to a client.
func TestPipelinesEqualASequentialTwin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	gen := commandtest.NewGenerator(seed)
	const shards = 5
	s := open(t, shards, keyspace.Options{}).NewSession(hook{})
	twin := open(t, 1, keyspace.Options{}).NewSession(hook{})
	defer s.Close()
	defer twin.Close()
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	for round := range rounds {
		s.Proto = 2 + rng.IntN(2)
		twin.Proto = s.Proto
		var cmds [][][]byte
		for len(cmds) == 0 || rng.IntN(30) > 0 {
			switch rng.IntN(25) {
			case 0:
				cmds = append(cmds, words([]string{"MULTI", "DISCARD", "WATCH key:1 key:2", "UNWATCH"}[rng.IntN(4)]))
			case 1:
				cmds = append(cmds, words("MULTI"))
				for range rng.IntN(6) {
					cmds = append(cmds, gen.Next())
				}
				cmds = append(cmds, words("EXEC"))
			case 2:
				cmds = append(cmds, words([]string{"DBSIZE", "PING", "SCAN 0 COUNT 1000", "KEYS *", "KEYS key:[1-5]", "RANDOMKEY x"}[rng.IntN(6)]))
			case 3:
				if rng.IntN(10) == 0 {
					cmds = append(cmds, words("FLUSHALL"))
				}
			default:
				cmds = append(cmds, gen.Next())
			}
		}
		cmds = append(cmds, words("EXEC")) // so that no transaction stays open
		var all, one sink
		if _, err := s.Exec(cmds, &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range cmds {
			if _, err := twin.Exec([][][]byte{c}, &one); err != nil {
				t.Fatal(err)
			}
			_ = one.Flush()
		}
		_ = all.Flush()
		got, want := replies(t, all.sent), replies(t, one.sent)
		if len(got) != len(cmds) || len(want) != len(cmds) {
			t.Fatalf("round %d: %d and %d replies to %d commands", round, len(got), len(want), len(cmds))
		}
		for i, c := range cmds {
			if !same(c, got[i], want[i]) {
				t.Fatalf("round %d, command %d of %d: %s\n got %q\nwant %q", round, i, len(cmds), commandtest.Format(c), got[i], want[i])
			}
		}
	}
}

// same compares two replies: lists of keys in any order, times to live up to some seconds.
func same(c [][]byte, got, want []byte) bool {
	switch strings.ToLower(string(c[0])) {
	case "keys", "scan", "exec": // a transaction may hold times to live and lists
		if bytes.Equal(got, want) {
			return true
		}
		a, b := flat(got), flat(want)
		return fmt.Sprint(a) == fmt.Sprint(b)
	}
	return commandtest.Same(c, got, want)
}

// flat lists the elements of a reply, sorted, with large numbers (times) rounded.
func flat(raw []byte) []string {
	v, err := resp.NewReader(bytes.NewReader(raw)).Read()
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	var walk func(resp.Value)
	walk = func(v resp.Value) {
		if v.Kind == ':' && v.Int > 1000 {
			list = append(list, "time")
			return
		}
		list = append(list, fmt.Sprintf("%c%s%d%v", v.Kind, v.Str, v.Int, v.Float))
		for _, e := range v.Elems {
			walk(e)
		}
	}
	walk(v)
	slices.Sort(list)
	return list
}
