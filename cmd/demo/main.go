// Command demo shows a mirror at work: a primary and a replica as real processes, a link that is cut, a process that is
// killed, and figures of what that cost. It needs nothing but Go: go run ./cmd/demo
package main

import (
	"context"
	"os"

	"github.com/understudy-kv/understudy/internal/demo"
)

func main() {
	os.Exit(demo.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
