package glob

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		fold, want bool
	}{
		{"", "", false, true}, {"", "a", false, false}, {"a", "", false, false}, {"*", "", false, false}, {"*", "abc", false, true},
		{"a*c", "abbc", false, true}, {"a*c", "abb", false, false}, {"h?llo", "hello", false, true}, {"h?llo", "hllo", false, false},
		{"h[ae]llo", "hallo", false, true}, {"h[ae]llo", "hillo", false, false}, {"h[^e]llo", "hallo", false, true},
		{"h[^e]llo", "hello", false, false}, {"h[a-b]llo", "hbllo", false, true}, {"h[b-a]llo", "hallo", false, true},
		{`a\*c`, "a*c", false, true}, {`a\*c`, "abc", false, false}, {`a\`, `a\`, false, true}, {"[abc", "c", false, true},
		{"[", "a", false, false}, {`[\]]`, "]", false, true}, {"MAX*", "maxclients", true, true}, {"MAX*", "maxclients", false, false},
		{"[A-C]", "b", true, true}, {"a***b", "axb", false, true}, {"a**", "a", false, true}, {"*a*b*c", "1a2b3c", false, true},
		{"*a*b*c", "1a2b3", false, false}, {"a?", "a", false, false},
	} {
		if got := Match([]byte(c.pattern), []byte(c.s), c.fold); got != c.want {
			t.Errorf("Match(%q, %q, %v) = %v", c.pattern, c.s, c.fold, got)
		}
	}
}

// A pattern of many stars must not take for ever: CVE-2022-36021 of Redis.
func TestManyStars(t *testing.T) {
	begun := time.Now()
	if Match([]byte(strings.Repeat("a*", 100)+"b"), []byte(strings.Repeat("a", 2000)), false) {
		t.Error("a match without a b")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
