package replctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/units"
	"github.com/understudy-kv/understudy/wire"
)

type surplusCommand struct {
	List   surplusListCommand   `cmd:"" help:"List the files with mutations that a node had alone and saved before it rejoined."`
	Show   surplusShowCommand   `cmd:"" help:"Print what is in them, as the commands that would bring it about."`
	Replay surplusReplayCommand `cmd:"" help:"Send what is in them to a primary, as commands."`
}

type surplusListCommand struct {
	DataDir string `help:"Data directory of a node, running or stopped." placeholder:"DIR" required:""`
	Shard   *int   `help:"Only this shard." placeholder:"N"`
	JSON    bool   `help:"Print one JSON object a file." name:"json"`
}

// surplusSummary is a row of the list.
type surplusSummary struct {
	Shard      int    `json:"shard"`
	Generation string `json:"generation"`
	First      uint64 `json:"first"`
	Next       uint64 `json:"next"`
	Mutations  uint64 `json:"mutations"` // that could be read
	Keys       int    `json:"keys"`      // different ones among them
	Bytes      int64  `json:"bytes"`     // of the file
	Begin      string `json:"begin,omitempty"`
	End        string `json:"end,omitempty"`
	File       string `json:"file"`
	Error      string `json:"error,omitempty"`
}

func (c *surplusListCommand) run(ctx context.Context, out output) int {
	files, bad := findSurplus(c.DataDir, nil, c.Shard)
	var rows []row
	code := cli.Clean
	for _, f := range files {
		s, err := f.summarize(ctx)
		if ctx.Err() != nil {
			return out.complain("%v", ctx.Err())
		}
		if err != nil {
			s.Error = err.Error()
			code = out.complain("%v", err)
		}
		if c.JSON {
			if err := json.NewEncoder(out.stdout).Encode(s); err != nil {
				return out.complain("%v", err)
			}
			continue
		}
		rows = append(rows, row{cells: s.cells()})
	}
	if len(rows) > 0 {
		if err := table(out.stdout, surplusHeader, rows); err != nil {
			return out.complain("%v", err)
		}
	}
	if bad != nil {
		return out.complain("%v", bad)
	}
	if len(files) == 0 && !c.JSON {
		fmt.Fprintln(out.stdout, noSurplus(c.DataDir, c.Shard))
	}
	return code
}

// noSurplus says that there is nothing to tell about.
func noSurplus(dir string, shard *int) string {
	if shard != nil {
		return fmt.Sprintf("no surplus of shard %d in %s", *shard, dir)
	}
	return "no surplus in " + dir
}

var surplusHeader = []string{"SHARD", "GENERATION", "OFFSETS", "MUTATIONS", "KEYS", "BYTES", "FIRST COMMIT", "LAST COMMIT", "FILE"}

func (s surplusSummary) cells() []string {
	file := s.File
	if s.Error != "" {
		file += " (NOT WHOLE)"
	}
	return []string{number(s.Shard), s.Generation, fmt.Sprintf("[%d, %d)", s.First, s.Next), number(s.Mutations), number(s.Keys), units.Human(float64(s.Bytes)),
		orDash(s.Begin), orDash(s.End), file}
}

// summarize reads the whole file. With an error, the summary is of what is whole before it.
func (f surplusFile) summarize(ctx context.Context) (surplusSummary, error) {
	s := surplusSummary{Shard: f.shard, Generation: f.generation.String(), First: f.first, Next: f.next, File: filepath.Base(f.path)}
	if info, err := os.Stat(f.path); err == nil {
		s.Bytes = info.Size()
	}
	keys := map[string]struct{}{}
	err := f.frames(ctx, func(frame wire.Frame, _ int64) error {
		if s.End = commitTime(frame.Commit); s.Begin == "" {
			s.Begin = s.End
		}
		s.Mutations += uint64(frame.Count)
		return eachEffect(frame, func(e effect) error {
			if e.kind == effectSet || e.kind == effectDelete {
				keys[string(e.key)] = struct{}{}
			}
			return nil
		})
	})
	s.Keys = len(keys)
	return s, err
}

// commitTime writes a frame's commit time.
func commitTime(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000Z")
}

// errNoFiles is for commands that need to be told where to look.
var errNoFiles = errors.New("give --data-dir, or the paths of surplus files")

type surplusShowCommand struct {
	DataDir string   `help:"Data directory of a node, running or stopped." placeholder:"DIR"`
	Files   []string `arg:"" optional:"" name:"file" help:"Only these files." placeholder:"FILE"`
	Shard   *int     `help:"Only this shard." placeholder:"N"`
	Keys    bool     `help:"List only the keys, with their offsets and times."`
	Full    bool     `help:"Print long values whole."`
	JSON    bool     `help:"Print one JSON object a frame, as replctl log does, or with --keys one a key." name:"json"`
}

// Validate is called by the parser.
func (c *surplusShowCommand) Validate() error {
	if c.DataDir == "" && len(c.Files) == 0 {
		return errNoFiles
	}
	return nil
}

func (c *surplusShowCommand) run(ctx context.Context, out output) int {
	files, err := findSurplus(c.DataDir, c.Files, c.Shard)
	if err != nil {
		return out.complain("%v", err)
	}
	if len(files) == 0 && !c.JSON {
		fmt.Fprintln(out.stdout, noSurplus(c.DataDir, c.Shard))
	}
	show := showFrames
	if c.Keys {
		show = showKeys
	}
	code := cli.Clean
	for _, f := range files {
		if err := show(ctx, c, f, out.stdout); err != nil {
			code = out.complain("%v", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return code
}
