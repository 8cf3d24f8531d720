package units

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]Bytes{
		"0": 0, "1": 1, "4096": 4096, "10b": 10, "64MiB": 64 << 20, "1GiB": 1 << 30, "512mb": 512 << 20, "512MB": 512 << 20,
		"1k": 1000, "1kb": 1024, "1KiB": 1024, "3m": 3_000_000, "2g": 2_000_000_000, "2gb": 2 << 30, "1t": 1e12, "1TiB": 1 << 40,
		" 5 MiB ": 5 << 20, "9223372036854775807": 9223372036854775807,
	} {
		if got, err := ParseBytes(s); got != want || err != nil {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"": "not a size", "MiB": "not a size", "-1": "not a size", "1.5GiB": "not a size", "5x": "not a size", "0x10": "not a size",
		"1 2": "not a size", "1kibkib": "not a size", "9223372036854775808": "over 8 EiB", "9000000tib": "over 8 EiB", "99999999999999999999": "over 8 EiB",
	} {
		if got, err := ParseBytes(s); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"`+s+`"`) {
			t.Errorf("ParseBytes(%q) = %d, %v, want an error that names it and says %q", s, got, err, want)
		}
	}
}

func TestStringReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Min(0).Draw(t, "b"))
		if got, err := ParseBytes(b.String()); got != b || err != nil {
			t.Fatalf("ParseBytes(%q) = %d, %v, want %d", b.String(), got, err, b)
		}
	})
	for b, want := range map[Bytes]string{0: "0", 1: "1", 1024: "1KiB", 1025: "1025", 64 << 20: "64MiB", 3 << 29: "1536MiB"} {
		if b.String() != want {
			t.Errorf("%d is %q, want %q", int64(b), b, want)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 10 << 10: "10.0 KiB", 200 << 10: "200 KiB",
		1 << 20: "1.00 MiB", 1<<20 - 1: "1.00 MiB", 1 << 50: "1024 TiB", -2048: "-2.00 KiB",
	} {
		if got := Human(n); got != want {
			t.Errorf("Human(%v) = %q, want %q", n, got, want)
		}
	}
}
