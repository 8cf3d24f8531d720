package engine

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/understudy-kv/understudy/internal/polite"
)

// TestPoliteFilter: the filters are what they were, and whoever builds one yields between its keys.
func TestPoliteFilter(t *testing.T) {
	base := bloom.FilterPolicy(10)
	p := politeFilter{base}
	if p.Name() != base.Name() {
		t.Fatalf("the name is %s, files say %s", p.Name(), base.Name())
	}
	want := base.NewWriter(pebble.TableFilter)
	got := p.NewWriter(pebble.TableFilter).(*politeWriter)
	for i := range 10 * keysATurn {
		if yielded := got.worker != (polite.Worker{}); yielded != (i >= keysATurn) {
			t.Fatalf("behind %d keys: yielded %v", i, yielded)
		}
		key := fmt.Append(nil, "key", i)
		want.AddKey(key)
		got.AddKey(key)
	}
	if a, b := want.Finish(nil), got.Finish(nil); !bytes.Equal(a, b) {
		t.Error("the filter differs")
	}
	for _, l := range pebbleOptions(Options{Shared: &Shared{}}, nil).Levels {
		if _, polite := l.FilterPolicy.(politeFilter); !polite {
			t.Errorf("a level's filter is a %T", l.FilterPolicy)
		}
	}
}
