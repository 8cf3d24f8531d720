package replctl

import (
	"bytes"
	"strings"
	"testing"

	"github.com/understudy-kv/understudy/internal/cli"
)

// The simulator runs as users run it: one seed with its transcript, several in a row, a part of a schedule; and it says
// what is wrong with its flags.
func TestSimulate(t *testing.T) {
	simulate := func(want int, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), append([]string{"simulate"}, args...), &stdout, &stderr); code != want {
			t.Fatalf("%v gave %d: %s%s", args, code, &stdout, &stderr)
		}
		return stdout.String() + stderr.String()
	}
	if got := simulate(cli.Clean, "--seed", "3", "--steps", "6", "--nodes", "2", "--shards", "1", "--transcript"); !strings.Contains(got, "everybody has the same\nseed 3: 2 nodes, 1 shards") || !strings.Contains(got, "every invariant held") {
		t.Errorf("one seed printed %q", got)
	}
	if got := simulate(cli.Clean, "--seed", "3", "--seeds", "3", "--steps", "4"); !strings.HasPrefix(got, "3 seeds from 3: every invariant held") {
		t.Errorf("three seeds printed %q", got)
	}
	if got := simulate(cli.Clean, "--seed", "3", "--nodes", "3", "--shards", "2", "--reduce", "nodes=2,shards=1,steps=0+5"); !strings.Contains(got, "2 nodes, 1 shards") || !strings.Contains(got, "2 steps") {
		t.Errorf("a part of a schedule printed %q", got)
	}
	for _, bad := range [][]string{{"--nodes", "6"}, {"--seeds", "0"}, {"--reduce", "all"}, {"--reduce", "nodes=1,shards=1,steps=99"}} {
		if got := simulate(cli.Failed, bad...); !strings.Contains(got, bad[1]) {
			t.Errorf("%v printed %q, which does not name %s", bad, got, bad[1])
		}
	}
}
