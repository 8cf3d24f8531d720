package loadgen

import (
	"errors"
	"strings"
	"testing"
)

// TestRepliesInPieces: however the stream is cut, as many replies are counted.
func TestRepliesInPieces(t *testing.T) {
	stream := "+OK\r\n$5\r\na\r\nb\n\r\n$-1\r\n:42\r\n$0\r\n\r\n+OK\r\n+PONG\r\n$11\r\n+OK\r\n+OK\r\n!\r\n"
	const want = 8
	for size := 1; size <= len(stream); size++ {
		var c counter
		got := 0
		for at := 0; at < len(stream); at += size {
			n, err := c.count([]byte(stream[at:min(at+size, len(stream))]))
			if err != nil {
				t.Fatalf("in pieces of %d: %v", size, err)
			}
			got += n
		}
		if got != want || c.misses != 1 || c.body != 0 || len(c.line) != 0 {
			t.Errorf("in pieces of %d: %d replies, %d misses, %d bytes due, %q left; want %d, 1, none, none", size, got, c.misses, c.body, c.line, want)
		}
	}
}

func TestRepliesThatAreNone(t *testing.T) {
	for stream, says := range map[string]string{
		"-READONLY You can't write\r\n":        "READONLY You can't write",
		"+OK\r\n-LOADING\r\n":                  "LOADING",
		"HTTP/1.1 400 Bad Request\r\n":         "HTTP",
		"*1\r\n+OK\r\n":                        "*1",
		"$x\r\n":                               `"x"`,
		"+OK\n":                                "no RESP reply",
		"$99999999999999999999\r\n":            "no RESP reply",
		"+" + strings.Repeat("x", maxLine+100): "longer",
	} {
		var c counter
		_, err := c.count([]byte(stream))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v; want one that says %s", stream, err, says)
		}
		if errors.Is(err, errReply) != strings.Contains(stream, "-") {
			t.Errorf("%.40q: %v: is it an error reply?", stream, err)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	var c counter
	stream := []byte(strings.Repeat("+OK\r\n$5\r\nabcde\r\n", 64))
	half := len(stream)/2 + 7
	c.count(stream[:half]) //nolint:errcheck // the next line counts
	c.count(stream[half:]) //nolint:errcheck
	if n := testing.AllocsPerRun(100, func() {
		a, _ := c.count(stream[:half])
		b, _ := c.count(stream[half:])
		if a+b != 128 {
			t.Errorf("%d replies, want 128", a+b)
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
