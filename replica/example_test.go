package replica

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func Example() {
	primary, stop := startPrimary() // somewhere else, as a rule
	defer stop()
	dir, err := os.MkdirTemp("", "replica")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	node, err := Open(Options{Dir: dir, Primary: primary})
	if err != nil {
		panic(err)
	}
	defer node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := node.WaitCaughtUp(ctx); err != nil {
		panic(err)
	}
	v, err := node.Do(ctx, "GET", "greeting")
	fmt.Println(v, err)
	_, err = node.Do(ctx, "SET", "greeting", "good morning")
	fmt.Println(err)

	// Output:
	// hello <nil>
	// READONLY You can't write against a read only replica.
}

// exampleT is the testing.TB of an example: what fails panics.
type exampleT struct {
	testing.TB
	dir      string
	cleanups []func()
}

func (t *exampleT) Helper()                   {}
func (t *exampleT) TempDir() string           { return t.dir }
func (t *exampleT) Cleanup(f func())          { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Error(args ...any)         { panic(fmt.Sprint(args...)) }
func (t *exampleT) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (t *exampleT) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }

// startPrimary serves one shard with a greeting in it, at the address. Package replica may not import package primary,
// so it is the scripted primary of the tests, over TCP.
func startPrimary() (address string, stop func()) {
	t := &exampleT{}
	var err error
	if t.dir, err = os.MkdirTemp("", "source"); err != nil {
		panic(err)
	}
	s := newSource(t)
	if _, err := s.keyspace.Do(context.Background(), "SET", "greeting", "hello"); err != nil {
		panic(err)
	}
	s.refresh()
	s.checkpoint(1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // stop has closed it
			}
			group.Go(func() { s.serve(conn) })
		}
	})
	return l.Addr().String(), func() {
		l.Close()
		s.cutAll()
		group.Wait()
		for _, f := range t.cleanups {
			f()
		}
		os.RemoveAll(t.dir)
	}
}
