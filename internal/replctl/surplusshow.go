package replctl

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/understudy-kv/understudy/wire"
)

// showFrames prints a file's mutations as commands. Lines that are no commands begin with #.
func showFrames(ctx context.Context, c *surplusShowCommand, f surplusFile, w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	p := framePrinter{w: b, shard: f.shard, file: filepath.Base(f.path), json: true}
	if !c.JSON {
		fmt.Fprintf(b, "# %s: shard %d, offsets [%d, %d), generation %s\n", p.file, f.shard, f.first, f.next, f.generation)
	}
	err := f.frames(ctx, func(frame wire.Frame, at int64) error {
		if c.JSON {
			return p.frame(frame, at)
		}
		return writeCommands(b, f.shard, frame, c.Full)
	})
	return errors.Join(b.Flush(), err)
}

// writeCommands prints a frame. Entries of the expiry index follow from the commands, so they are told only of mutations
// that have nothing else.
func writeCommands(w io.Writer, shard int, frame wire.Frame, full bool) error {
	offset, lines, index := frame.First, 0, ""
	begin := func(at uint64) (err error) {
		if lines == 0 && index != "" {
			_, err = io.WriteString(w, index)
		}
		if offset, lines, index = at, 0, ""; err == nil && at != frame.Next() {
			_, err = fmt.Fprintf(w, "# shard %d, offset %d, committed %s\n", shard, at, commitTime(frame.Commit))
		}
		return err
	}
	err := begin(offset)
	if err == nil {
		err = eachEffect(frame, func(e effect) error {
			for offset != e.offset {
				if err := begin(offset + 1); err != nil {
					return err
				}
			}
			line := ""
			switch e.kind {
			case effectIndex:
				index += fmt.Sprintf("# expiry index: %s\n", describe(e.op))
				return nil
			case effectRaw:
				line = fmt.Sprintf("# no command does this: %s", describe(e.op))
			case effectFlush:
				// No command empties one shard, so it is nothing to pass on to redis-cli.
				line = "# FLUSHALL or FLUSHDB, this shard's part of it"
			default:
				// As it was committed, whatever has expired since.
				line = printed(e.command(0), full)
			}
			lines++
			_, err := fmt.Fprintln(w, line)
			return err
		})
	}
	if err != nil {
		return err
	}
	return begin(frame.Next())
}

// keyText is what a surplus file has about one key.
type keyText struct {
	Shard     int    `json:"shard"`
	Key       string `json:"key"`
	Hex       bool   `json:"hex,omitempty"` // Key is in hex, since it is not all text
	Mutations int    `json:"mutations"`
	First     uint64 `json:"first"` // offset of the first mutation
	Last      uint64 `json:"last"`  // offset of the last one
	Begin     string `json:"begin"`
	End       string `json:"end"`
	State     string `json:"state"` // after the last one
	File      string `json:"file"`
}

const (
	stateDeleted = "deleted"
	stateFlushed = "deleted with all others"
)

// showKeys lists the keys of one file by name.
func showKeys(ctx context.Context, c *surplusShowCommand, f surplusFile, w io.Writer) error {
	keys := map[string]*keyText{}
	damage := f.frames(ctx, func(frame wire.Frame, _ int64) error {
		return eachEffect(frame, func(e effect) error {
			state := stateDeleted
			switch e.kind {
			case effectFlush:
				for _, k := range keys {
					k.State = stateFlushed
				}
				return nil
			case effectSet:
				state = strconv.Itoa(len(e.value)) + " bytes"
				if e.deadline != 0 {
					state += " until " + deadline(e.deadline)
				}
			case effectDelete:
			default:
				return nil
			}
			k := keys[string(e.key)]
			if k == nil {
				k = &keyText{Shard: f.shard, First: e.offset, Begin: commitTime(e.commit), File: filepath.Base(f.path)}
				keys[string(e.key)] = k
			}
			if k.Mutations == 0 || k.Last != e.offset {
				k.Mutations++
			}
			k.Last, k.End, k.State = e.offset, commitTime(e.commit), state
			return nil
		})
	})
	var rows []row
	encode := json.NewEncoder(w)
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		k := keys[name]
		if !c.JSON {
			rows = append(rows, row{cells: []string{number(k.Shard), printed([]string{"", name}, c.Full)[1:], number(k.Mutations), number(k.First), number(k.Last), k.Begin, k.End, k.State}})
			continue
		}
		if k.Key, k.Hex = name, !utf8.ValidString(name); k.Hex {
			k.Key = hex.EncodeToString([]byte(name))
		}
		if err := encode.Encode(k); err != nil {
			return err
		}
	}
	if c.JSON {
		return damage
	}
	fmt.Fprintf(w, "%s: %d keys\n", filepath.Base(f.path), len(keys))
	return errors.Join(table(w, keysHeader, rows), damage)
}

var keysHeader = []string{"SHARD", "KEY", "MUTATIONS", "FIRST", "LAST", "FIRST COMMIT", "LAST COMMIT", "AFTER THE LAST"}
