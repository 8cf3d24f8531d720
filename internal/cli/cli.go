// Package cli is what the four programs share between main and their own work: parsing of flags with kong without ending
// the process, exit statuses, and how bad usage is told.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// The exit statuses of every program.
const (
	Clean  = 0 // it did what it was asked to
	Failed = 1 // it did not, or not cleanly
	Usage  = 2 // it was not asked in a way that it understands
)

// ErrDone is the result of parsing --help or --version: everything has been said, and the status is Clean.
var ErrDone = errors.New("nothing more to do")

// exited is what kong does for --help and --version in place of ending the process.
type exited int

// Parse parses args into grammar, a pointer to a struct with kong's tags. The error is [ErrDone] after --help or
// --version, and anything else is bad usage. It panics if the tags are wrong.
func Parse(grammar any, args []string, stdout, stderr io.Writer, options ...kong.Option) (ctx *kong.Context, err error) {
	k, err := kong.New(grammar, append(options, kong.Writers(stdout, stderr), kong.Exit(func(code int) { panic(exited(code)) }))...)
	if err != nil {
		panic("cli: the tags of the flags are wrong: " + err.Error())
	}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exited:
			err = ErrDone
		default:
			panic(r)
		}
	}()
	return k.Parse(args)
}

// Status turns [Parse]'s error into an exit status. It tells every fault on a line of its own, and where help is.
func Status(err error, name string, stderr io.Writer) int {
	if err == nil || errors.Is(err, ErrDone) {
		return Clean
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "%s: %s\n", name, strings.TrimSpace(line))
	}
	fmt.Fprintf(stderr, "%s: run %s --help for the flags\n", name, name)
	return Usage
}
