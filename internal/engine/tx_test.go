package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// What a group's frame holds, operation by operation: the effect, absolute, whatever the command was (pitfall 23). One
// path makes it all (pitfall 27).
func TestFrame(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	r.mutate(func(tx *Tx) {
		tx.Set([]byte("{t}a"), Record{Type: TypeString, Deadline: 1_700_000_000_000, Value: []byte("one")})
		tx.Set([]byte("{t}a"), Record{Type: TypeString, Deadline: 1_700_000_000_000, Value: []byte("two")})
	})
	r.mutate(func(tx *Tx) { tx.Delete([]byte("{t}b")) })
	if r.mutate(func(tx *Tx) { tx.Get([]byte("{t}a")) }) {
		t.Error("a mutation that only read was ended as one")
	}
	r.mutate(func(tx *Tx) {
		tx.Set([]byte("long"), Record{Type: TypeString, Value: []byte(strings.Repeat("x", 100))})
		tx.DeleteAll()
	})
	b := r.batch()
	var got []string
	r.must(b.Each(func(op wire.Op) error { got = append(got, describe(op)); return nil }))
	want := []string{
		`put "{t}a" (slot 15891) = string "one" until 2023-11-14T22:13:20.000Z`,
		`put expiry of "{t}a" at 2023-11-14T22:13:20.000Z`,
		`put "{t}a" (slot 15891) = string "two" until 2023-11-14T22:13:20.000Z`,
		`end`,
		`delete "{t}b" (slot 15891)`,
		`end`,
		`put "long" (slot 5598) = string "` + strings.Repeat("x", 64) + `" and 36 bytes more`,
		`delete-range everything`,
		`end`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the frame has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The hooks hear of every key that changes, also of those that the reaper takes.
func TestTouched(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	var heard []string
	r.e.Tx().Touched = func(k []byte) { heard = append(heard, string(k)) }
	r.e.Tx().TouchedAll = func() { heard = append(heard, "*") }
	r.mutate(func(tx *Tx) {
		tx.Set([]byte("a"), Record{Type: TypeString, Deadline: r.now + 5})
		tx.Set([]byte("b"), Record{Type: TypeString, Deadline: r.now + 5})
		tx.Set([]byte("b"), Record{Type: TypeString})
		tx.Delete([]byte("c"))
	})
	r.commit()
	r.now += 6
	r.mutate(func(tx *Tx) {
		if n, more := tx.ReapExpired(10); n != 1 || more {
			t.Errorf("reaped %d, more %v", n, more)
		}
		if n, more := tx.ReapExpired(10); n != 0 || more { // the group's second look
			t.Errorf("reaped %d more, more %v", n, more)
		}
		tx.DeleteAll()
	})
	if got := fmt.Sprint(heard); got != "[a b b c a *]" {
		t.Errorf("heard %s", got)
	}
}

// A mutation that does not fit in the frame is an error, and is forgotten whole. (Limits: one value of 512 MiB always
// fits; here the frame is filled without the memory that takes.)
func TestFrameFull(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 1 GiB")
	}
	r := newRig(t, vfs.NewMem(), Options{})
	tx := r.e.Tx()
	big := make([]byte, 520<<20)
	tx.Begin(&r.b, r.group, r.now)
	for _, k := range []string{"a", "b"} {
		tx.Set([]byte(k), Record{Type: TypeString, Value: big})
	}
	if !errors.Is(tx.Err(), wire.ErrTooLarge) || tx.End() {
		t.Fatalf("two values of 520 MiB in one mutation: %v", tx.Err())
	}
	if r.b.Count() != 0 || r.b.Len() != 0 {
		t.Fatal("a part of the mutation is left")
	}
	r.set("d", "1")
	r.want("a", "none")
}

// Groups of many keys, and then small ones again, keep the overlay right through its growing and its shrinking.
func TestOverlaySizes(t *testing.T) {
	r := newRig(t, vfs.NewMem(), Options{})
	for round, n := range []int{1, 100, 70_000, 3, 2000, 1} {
		for i := range n {
			r.set(fmt.Sprint("k", i), fmt.Sprint(round))
		}
		for i := 0; i < n; i += 1 + n/50 {
			r.want(fmt.Sprint("k", i), fmt.Sprint(round))
		}
		r.want("absent", "none")
		r.commit()
		for i := 0; i < n; i += 1 + n/50 {
			r.want(fmt.Sprint("k", i), fmt.Sprint(round))
		}
	}
}
