package shard_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/shard"
	"github.com/understudy-kv/understudy/wire"
)

// A storage error that lasts does not pass for a full disk, though want of room caused it: clients are told that writes
// go on by themselves when there is room, and these do not.
func TestLastingFaultIsNotAFullDisk(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	var fail func(error)
	inner := factory(fs, new(atomic.Bool))
	o.Open = func(e shard.Env) (shard.StateMachine, error) { fail = e.OnError; return inner(e) }
	s := open(t, o)
	mustWrite(t, s, "a", "1")
	fail(fmt.Errorf("writing a manifest: %w", syscall.ENOSPC))
	if _, err := write(t, s, "b", "2"); err == nil || errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a fenced shard refuses with %v, a full disk: %t", err, errors.Is(err, syscall.ENOSPC))
	}
}

// What a replaced state machine reports while it closes does not fence the data that replaced it.
func TestReplacedMachineDoesNotFence(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	var fails []func(error)
	inner := factory(fs, new(atomic.Bool))
	o.Open = func(e shard.Env) (shard.StateMachine, error) { fails = append(fails, e.OnError); return inner(e) }
	s := open(t, o)
	demote(t, s)
	l := wire.Lineage{{Generation: wire.Generation{9}, First: 0}}
	if err := s.Install(filledDir(t, fs, "/staged", s, 0), l.At(0), l); err != nil {
		t.Fatal(err)
	}
	fails[0](errors.New("late"))
	if err := s.Err(); err != nil {
		t.Fatalf("an error of the replaced machine fenced the shard: %v", err)
	}
	fails[1](errors.New("real"))
	if err := s.Err(); err == nil {
		t.Fatal("an error of the machine in use did not fence the shard")
	}
}
