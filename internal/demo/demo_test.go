package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/status"
)

// TestMain lets the test binary be the demo's child, as the demo's own binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], childPrefix) {
		os.Exit(Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

func TestTheStoryEndsWellAndItsFiguresAreRight(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, and takes 10 seconds")
	}
	dir := filepath.Join(t.TempDir(), "stage")
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), []string{"--once", "--shards", "2", "--rate", "1000", "--away", "500ms", "--dir", dir}, nil, &stdout, &stderr)
	if code != cli.Clean || stderr.Len() > 0 {
		for _, name := range []string{"primary.log", "replica.log"} {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			t.Logf("%s:\n%s", name, b)
		}
		t.Fatalf("status %d\n%s%s", code, stdout.String(), stderr.String())
	}
	for _, want := range []string{"full syncs                        1 (of each shard)", "resumes                           2 (of each shard)", "identical                         yes"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the story does not say %q:\n%s", want, stdout.String())
		}
	}
	if code := Run(t.Context(), []string{"--once", "--dir", dir}, nil, &stdout, &stderr); code != cli.Failed || !strings.Contains(stderr.String(), "is not empty") {
		t.Errorf("a second run in %s: status %d, %s", dir, code, stderr.String())
	}
}

func TestBadUsage(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"--shards", "65", "--rate", "1", "--away", "1h"}, nil, &stdout, &stderr); code != cli.Usage {
		t.Errorf("status %d", code)
	}
	for _, want := range []string{"--shards: 65", "--rate: 1;", "--away: 1h0m0s"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q does not say %q", stderr.String(), want)
		}
	}
}

func TestReadAddsUpAndTakesTheWorst(t *testing.T) {
	p := status.Node{Shards: []status.Shard{
		{Offset: 10, Resumes: 1, FullSyncs: map[string]uint64{"empty": 1}, Slots: []status.Slot{{RetainedBytes: 5, BytesLeft: 7}}},
		{Offset: 20, Resumes: 2, FullSyncs: map[string]uint64{"empty": 1, "evicted": 1}, Slots: []status.Slot{{RetainedBytes: 1, BytesLeft: 1}}},
	}}
	r := status.Node{Shards: []status.Shard{
		{Offset: 10, Link: &status.Link{State: "streaming", Mutations: 3, Bytes: 30, SnapshotBytes: 9}},
		{Offset: 15, Link: &status.Link{State: "backoff", LagMutations: 5, LagMillis: 1.5, Mutations: 4, Bytes: 40}},
	}}
	f := read(p, r)
	if f.missing() != 5 || f.resumes != 3 || f.fullSyncs != 3 || f.behind != 5 || f.lagMillis != 1.5 || f.streaming || f.link.mutations != 7 || f.link.bytes != 70 || f.retained != 6 || f.left != 8 {
		t.Errorf("%+v", f)
	}
	if reached(f.replica, f.primary) || !reached(f.primary, f.replica) || reached(nil, f.primary) {
		t.Error("reached compares the wrong way")
	}
}
