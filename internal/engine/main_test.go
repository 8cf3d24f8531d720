package engine

import (
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// fencedEnv is set in the child process that runs a test which leaves engines behind their fence: such an engine keeps
// its goroutines, by design, so those tests run apart from the ones that look for leaks.
const fencedEnv = "UNDERSTUDY_TEST_FENCED"

func TestMain(m *testing.M) {
	if os.Getenv(fencedEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// apart runs the calling test in a process of its own, and reports whether this is that process.
func apart(t *testing.T) bool {
	t.Helper()
	if os.Getenv(fencedEnv) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), fencedEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}
