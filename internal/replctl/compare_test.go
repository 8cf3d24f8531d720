package replctl

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-kv/understudy/internal/engine"
)

// memory is a snapshot of a map from engine keys to values. Pieces are cut short now and then, as a server may.
type memory struct {
	keys   []string
	values map[string]string
	most   int
}

func newMemory(values map[string]string, most int) *memory {
	return &memory{keys: slices.Sorted(maps.Keys(values)), values: values, most: most}
}

func (m *memory) between(from, to []byte, n int) (keys []string, next []byte) {
	for _, k := range m.keys {
		if k < string(from) || k >= string(to) {
			continue
		}
		if len(keys) == n {
			return keys, []byte(k)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (m *memory) digest(from, to []byte, n int) (string, []byte, error) {
	if n == 0 {
		n = len(m.keys)
	} else {
		n = min(n, m.most)
	}
	keys, next := m.between(from, to, n)
	h := fnv.New64()
	for _, k := range keys {
		fmt.Fprintf(h, "%q=%q ", k, m.values[k])
	}
	return fmt.Sprint(h.Sum64()), next, nil
}

func (m *memory) hashes(from, to []byte, n int) (entries []entry, next []byte, err error) {
	keys, next := m.between(from, to, min(n, m.most))
	for _, k := range keys {
		entries = append(entries, entry{key: []byte(k), sum: m.values[k]})
	}
	return entries, next, nil
}

func differences(t interface{ Fatal(...any) }, primary, replica map[string]string, most int) (got []string) {
	err := compareRanges(context.Background(), newMemory(primary, most), newMemory(replica, most), func([]byte) {}, func(key []byte, s sides) {
		got = append(got, string(key)+" "+string(s))
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever the two hold and however the ranges fall, exactly the differing keys are found, once and in order.
func TestCompareFindsExactlyTheDifferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Custom(func(t *rapid.T) string {
			return string(engine.AppendDataKey(nil, []byte(fmt.Sprint(rapid.IntRange(0, 40).Draw(t, "key")))))
		})
		value := rapid.SampledFrom([]string{"a", "b"})
		both := rapid.MapOf(key, value).Draw(t, "both")
		primary, replica := maps.Clone(both), maps.Clone(both)
		for k, v := range rapid.MapOf(key, value).Draw(t, "primary") {
			primary[k] = v
		}
		for k, v := range rapid.MapOf(key, value).Draw(t, "replica") {
			replica[k] = v
		}
		var want []string
		for _, k := range slices.Sorted(maps.Keys(primary)) {
			if v, ok := replica[k]; !ok {
				want = append(want, k+" "+string(onlyPrimary))
			} else if v != primary[k] {
				want = append(want, k+" "+string(bothDiffer))
			}
		}
		for k := range replica {
			if _, ok := primary[k]; !ok {
				want = append(want, k+" "+string(onlyReplica))
			}
		}
		slices.Sort(want)
		got := differences(t, primary, replica, rapid.IntRange(1, 50).Draw(t, "most"))
		if !slices.IsSorted(got) || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
