package loadgen

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKey(t *testing.T) {
	for n, want := range map[uint64]string{0: "key:000000000000", 7: "key:000000000007", 1_234_567: "key:000001234567", 1<<32 - 1: "key:004294967295"} {
		if got := Key(n); got != want {
			t.Errorf("Key(%d) = %s, want %s", n, got, want)
		}
	}
}

// TestScatter: ranks become other numbers, and no two the same one.
func TestScatter(t *testing.T) {
	for _, n := range []uint64{1, 2, 1000, 4096, 2654435761 / 2, 999_983} {
		if n > 1_000_000 {
			if v := scatter(n-1, n); v >= n {
				t.Errorf("scatter(%d, %d) = %d", n-1, n, v)
			}
			continue
		}
		seen := make([]bool, n)
		for i := range n {
			v := scatter(i, n)
			if seen[v] {
				t.Fatalf("of %d: two ranks become %d", n, v)
			}
			seen[v] = true
		}
	}
}

// TestZipf: the hottest of 10,000 keys takes 1/zeta(10000, 0.99) = 9.8 % of all draws, the second a half of that, and the
// hottest hundredth more than a half.
func TestZipf(t *testing.T) {
	r := random(1)
	const n, steps = 10_000, 400_000
	counts := make([]int, n)
	for _, k := range zipfTable(&r, n, steps) {
		counts[k]++
	}
	first, second := counts[scatter(0, n)], counts[scatter(1, n)]
	slices.Sort(counts)
	slices.Reverse(counts)
	top := 0
	for _, c := range counts[:n/100] {
		top += c
	}
	within := func(what string, got int, low, high float64) {
		if share := float64(got) / steps; share < low || share > high {
			t.Errorf("%s take %.4f of all, want %.3f to %.3f", what, share, low, high)
		}
	}
	within("draws of the hottest key", first, 0.093, 0.103)
	within("draws of the second", second, 0.045, 0.055)
	within("draws of the hottest hundredth", top, 0.50, 0.58)
}

// TestRequests: what is sent is RESP, with a key that was drawn and a value that is new.
func TestRequests(t *testing.T) {
	c := Config{Addr: "x", Keys: 1000, Value: 9, Gets: 50, Duration: time.Second}
	c.EnsureDefaults()
	s := newSource(&c, 0)
	sets, gets := map[string]bool{}, 0
	var b []byte
	for range 4000 {
		b, _ = s.append(b[:0])
		words := strings.SplitN(string(b), "\r\n", 7)
		if words[2] == "GET" {
			gets++
			if want := "*2\r\n$3\r\nGET\r\n$16\r\n" + words[4] + "\r\n"; string(b) != want {
				t.Fatalf("%q", b)
			}
		} else {
			if !bytes.HasPrefix(b, []byte("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000")) || words[5] != "$9" || len(words[6]) != 11 {
				t.Fatalf("%q", b)
			}
			sets[words[6]] = true
		}
	}
	if gets < 1800 || gets > 2200 {
		t.Errorf("%d of 4000 are GET, want about a half", gets)
	}
	if len(sets) != 4000-gets {
		t.Errorf("%d values for %d SETs: they repeat", len(sets), 4000-gets)
	}
	if n := testing.AllocsPerRun(100, func() { b, _ = s.append(b[:0]) }); n != 0 {
		t.Errorf("%g allocations a request", n)
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 {
		t.Error("an empty histogram has a quantile")
	}
	for i := 1; i <= 1000; i++ {
		h.Record(time.Duration(i) * time.Microsecond)
	}
	var other Histogram
	other.Record(time.Second)
	other.Record(-time.Second)
	h.Merge(&other)
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 991 * time.Microsecond, 1: time.Second, 0.0001: 0} {
		if got := h.Quantile(q); got < want || float64(got) > float64(want)*(1+1.0/32) {
			t.Errorf("quantile %g is %s, want %s or a little more", q, got, want)
		}
	}
	for v := uint64(1); v < 1<<62; v = v*3/2 + 1 {
		if i := bucket(v); v > upper(i) || i > 0 && v <= upper(i-1) {
			t.Fatalf("%d is in bucket %d, which is (%d, %d]", v, i, upper(i-1), upper(i))
		}
	}
}
