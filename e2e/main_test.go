package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	long = flag.Bool("long", false, "run the random scenarios at length, and write the largest values")
	soak = flag.Duration("soak", 15*time.Second, "how long the soak test breaks things; 0 leaves it out")
	seed = flag.Uint64("seed", 0, "seed of the random scenarios; 0 draws one")
)

// bin is the folder with the built commands.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	if f := flag.Lookup("test.list"); f != nil && f.Value.String() != "" {
		return m.Run()
	}
	var err error
	if bin, err = os.MkdirTemp("", "understudy-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-ldflags=-w", "-o", bin+string(filepath.Separator), "./cmd/...")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the commands: %v\n%s", err, out)
		return 1
	}
	// Most scenarios wait for a timeout of the product most of the time, so more of them run at once than there are cores. What
	// is measured to the second, as whether a fault is noticed within ten, comes before them: those tests are not parallel, but
	// their parts are.
	parallel := flag.Lookup("test.parallel")
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == parallel.Name })
	if !set {
		parallel.Value.Set("10") //nolint:errcheck // a number is a number
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	return m.Run()
}

// rng gives the test's own random numbers and tells how to have the same ones again.
func rng(t *testing.T) *rand.Rand {
	t.Helper()
	t.Logf("random scenario: -run '^%s$' -seed %d", t.Name(), *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}
