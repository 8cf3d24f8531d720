package backlog

import (
	"strings"
	"testing"
)

// The retention rule: what is kept, why, and what beats what (pitfalls 16 and 37).
func TestDecideTrim(t *testing.T) {
	ten := func(n int) (s []extent) { // segments of 10 bytes and 10 offsets each, the last one active
		for i := range n {
			s = append(s, extent{next: uint64(i+1) * 10, bytes: 10})
		}
		return s
	}
	for _, c := range []struct {
		name string
		r    retention
		n    int
		want int
	}{
		{"nothing to trim", retention{keep: 20, disk: 40, needed: 1000}, 2, 0},
		{"keep alone", retention{keep: 20, disk: 100, needed: 1000}, 5, 3},
		{"keep that ends inside a segment keeps it", retention{keep: 21, disk: 100, needed: 1000}, 5, 2},
		{"the active segment stays", retention{keep: 0, disk: 100, needed: 1000}, 5, 4},
		{"a slot holds what is behind it", retention{keep: 0, disk: 100, needed: 1000, slots: 25, hasSlots: true}, 5, 2},
		{"a slot at a segment's end", retention{keep: 0, disk: 100, needed: 1000, slots: 30, hasSlots: true}, 5, 3},
		{"a slot at 0 is a slot", retention{keep: 0, disk: 100, needed: 1000, slots: 0, hasSlots: true}, 5, 0},
		{"the cap beats the slot", retention{keep: 0, disk: 30, needed: 1000, slots: 0, hasSlots: true}, 5, 2},
		{"exactly at the cap", retention{keep: 0, disk: 50, needed: 1000, slots: 0, hasSlots: true}, 5, 0},
		{"recovery beats the cap", retention{keep: 0, disk: 10, needed: 15}, 5, 1},
		{"recovery at a segment's end", retention{keep: 0, disk: 10, needed: 20}, 5, 2},
		{"recovery needs everything", retention{keep: 0, disk: 10, needed: 0}, 5, 0},
		{"keep holds although a slot is further", retention{keep: 40, disk: 100, needed: 1000, slots: 50, hasSlots: true}, 5, 1},
	} {
		if got := decideTrim(ten(c.n), c.r); got != c.want {
			t.Errorf("%s: %d segments go, want %d", c.name, got, c.want)
		}
	}
}

// What recovery does with what it finds. Segments are written as first-next, with a letter for the fault: z zeros,
// t torn tail, f damaged frame, h header, x foreign.
func TestDecideRecovery(t *testing.T) {
	faults := map[string]faultKind{"": faultNone, "z": faultZeros, "t": faultTail, "f": faultFrame, "h": faultHeader, "x": faultForeign}
	seg := func(first, next uint64, f string) found {
		return found{path: "seg", name: first, next: next, good: int64(next - first), size: 1000, fault: fault{faults[f], "bad"}}
	}
	for _, c := range []struct {
		name   string
		found  []found
		synced uint64
		power  bool
		keep   int // 0: refused
		cut    bool
		next   uint64
	}{
		{"clean", []found{seg(0, 10, ""), seg(10, 20, "")}, 20, false, 2, false, 20},
		{"torn tail", []found{seg(0, 10, ""), seg(10, 15, "t")}, 10, false, 2, true, 15},
		{"torn tail, all synced", []found{seg(0, 10, ""), seg(10, 15, "t")}, 15, false, 2, true, 15},
		{"torn before the watermark", []found{seg(0, 10, ""), seg(10, 15, "t")}, 16, false, 0, false, 0},
		{"torn before the watermark, power lost", []found{seg(0, 10, ""), seg(10, 15, "t")}, 16, true, 0, false, 0},
		{"torn in the middle", []found{seg(0, 9, "t"), seg(10, 20, "")}, 0, false, 0, false, 0},
		{"torn in the middle, power lost", []found{seg(0, 9, "t"), seg(10, 20, "")}, 0, true, 1, true, 9},
		{"damaged in the last", []found{seg(0, 10, ""), seg(10, 15, "f")}, 0, false, 0, false, 0},
		{"damaged in the last, power lost", []found{seg(0, 10, ""), seg(10, 15, "f")}, 15, true, 2, true, 15},
		{"zeros at the end", []found{seg(0, 10, "z")}, 5, false, 1, true, 10},
		{"zeros before the next segment", []found{seg(0, 10, "z"), seg(10, 20, "")}, 20, false, 2, false, 20},
		{"zeros where frames were", []found{seg(0, 8, "z"), seg(10, 20, "")}, 8, false, 0, false, 0},
		{"zeros where frames were, power lost", []found{seg(0, 8, "z"), seg(10, 20, "")}, 8, true, 1, true, 8},
		{"zeros before the watermark", []found{seg(0, 8, "z")}, 9, true, 0, false, 0},
		{"a segment is missing", []found{seg(0, 10, ""), seg(20, 30, "")}, 0, false, 0, false, 0},
		{"a segment is missing, power lost", []found{seg(0, 10, ""), seg(20, 30, "")}, 10, true, 1, false, 10},
		{"a synced segment is missing", []found{seg(0, 10, ""), seg(20, 30, "")}, 11, true, 0, false, 0},
		{"the last one is missing", []found{seg(0, 10, "")}, 11, true, 0, false, 0},
		{"bad header", []found{seg(0, 10, ""), seg(10, 10, "h")}, 0, false, 0, false, 0},
		{"bad header, power lost", []found{seg(0, 10, ""), seg(10, 10, "h"), seg(20, 30, "")}, 10, true, 1, false, 10},
		{"bad first header, power lost", []found{seg(0, 0, "h")}, 0, true, 0, false, 0},
		{"another shard's, power lost", []found{seg(0, 10, ""), seg(10, 10, "x")}, 0, true, 0, false, 0},
		{"overlap, power lost", []found{seg(0, 10, ""), seg(9, 20, "")}, 0, true, 0, false, 0},
	} {
		v := decideRecovery(c.found, c.synced, c.power)
		if c.keep == 0 {
			if v.corrupt == nil {
				t.Errorf("%s: kept %d up to %d, want it refused", c.name, v.keep, v.next)
			}
			continue
		}
		if v.corrupt != nil || v.keep != c.keep || v.cut != c.cut || v.next != c.next {
			t.Errorf("%s: keep %d cut=%t next %d, %v; want %d %t %d", c.name, v.keep, v.cut, v.next, v.corrupt, c.keep, c.cut, c.next)
		}
	}
	later := seg(10, 20, "")
	later.synced = 9
	if v := decideRecovery([]found{seg(0, 8, "t"), later}, 0, true); v.corrupt == nil {
		t.Error("a later header says that offset 8 was synced, and it was cut")
	}
}

// A corruption names the file, the byte, the offset and the ways out.
func TestCorruptErrorText(t *testing.T) {
	text := (&CorruptError{File: "a.seg", Byte: 77, Offset: 5, Reason: "because"}).Error()
	for _, want := range []string{"a.seg", "byte 77", "offset 5", "because", "undamaged copy", "move this shard"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}
