package replctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/client"
	"github.com/understudy-kv/understudy/internal/glob"
	"github.com/understudy-kv/understudy/wire"
)

type surplusReplayCommand struct {
	DataDir    string   `help:"Data directory of the node that saved it, running or stopped." placeholder:"DIR"`
	Files      []string `arg:"" optional:"" name:"file" help:"Only these files." placeholder:"FILE"`
	To         string   `help:"RESP address of the primary. What it has under these keys is overwritten: look with --dry-run first." placeholder:"HOST:PORT" required:""`
	DryRun     bool     `help:"Send nothing: print the commands, and mark what the primary has otherwise."`
	Shard      *int     `help:"Only what was saved of this shard." placeholder:"N"`
	Key        string   `help:"Only keys that match this glob pattern, as in KEYS." placeholder:"PATTERN"`
	All        bool     `help:"Send every mutation in order, not only the last of each key."`
	AllowFlush bool     `help:"If a saved mutation deletes everything (FLUSHALL), empty the primary first, all of its shards. Otherwise that mutation is left out, with what it deleted."`
	Partial    bool     `help:"Send what is whole of files that are damaged or cut off."`
	Full       bool     `help:"With --dry-run, print long values whole."`
}

// Validate is called by the parser.
func (c *surplusReplayCommand) Validate() error {
	if c.DataDir == "" && len(c.Files) == 0 {
		return errNoFiles
	}
	if c.AllowFlush && c.Key != "" {
		return errors.New("--allow-flush empties the primary, whatever --key says: give one of the two")
	}
	return nil
}

// replayPlan is what is to be sent of some files: the files are walked once to make it, keys only, and a second time to
// send. Effects are numbered in the order of the walk.
//
// What lies before a shard's last flush is never sent: the flush deleted it.
type replayPlan struct {
	files   []surplusFile
	pattern string
	all     bool

	whole   []int             // frames of each file that could be read
	last    map[string]latest // the last effect on each key that is sent
	flushes map[int]uint64    // by shard, the last flush
	flushed uint64            // the offset of one of them, to be named
	raw     int               // operations that no command brings about
	damage  []error           // of files that are not whole
}

// latest names an effect: its number, and the shard of its file.
type latest struct {
	number uint64
	shard  int
}

// errEnough ends a walk over the frames of a file.
var errEnough = errors.New("that is enough")

// walk calls each with every effect, and its number. Of file i it takes limit[i] frames, all if there are no limits.
func (p *replayPlan) walk(ctx context.Context, limit []int, each func(file int, n uint64, e effect) error) error {
	n := uint64(0)
	for i, f := range p.files {
		frames := 0
		err := f.frames(ctx, func(frame wire.Frame, _ int64) error {
			if limit != nil && frames == limit[i] {
				return errEnough
			}
			frames++
			return eachEffect(frame, func(e effect) error { n++; return each(i, n, e) })
		})
		if limit == nil {
			p.whole = append(p.whole, frames)
		}
		var bad *surplusDamage
		switch {
		case errors.As(err, &bad):
			if limit == nil {
				p.damage = append(p.damage, err)
			} else if frames < limit[i] {
				return fmt.Errorf("it has changed meanwhile: %w", err)
			}
		case err != nil && !errors.Is(err, errEnough):
			return err
		}
	}
	return nil
}

// make walks the files for the first time.
func (p *replayPlan) make(ctx context.Context) error {
	p.last, p.flushes = map[string]latest{}, map[int]uint64{}
	return p.walk(ctx, nil, func(file int, n uint64, e effect) error {
		shard := p.files[file].shard
		switch e.kind {
		case effectRaw:
			p.raw++
		case effectFlush:
			p.flushes[shard], p.flushed = n, e.offset
			for k, l := range p.last {
				if l.shard == shard {
					delete(p.last, k)
				}
			}
		case effectSet, effectDelete:
			if p.matches(e.key) {
				p.last[string(e.key)] = latest{number: n, shard: shard}
			}
		}
		return nil
	})
}

func (p *replayPlan) matches(key []byte) bool {
	return p.pattern == "" || glob.Match([]byte(p.pattern), key, false)
}

// wants reports whether an effect is sent, and whether it is its key's last.
func (p *replayPlan) wants(file int, n uint64, e effect) (send, last bool) {
	if e.kind != effectSet && e.kind != effectDelete {
		return false, false
	}
	l, ok := p.last[string(e.key)]
	last = ok && l.number == n
	return last || p.all && p.matches(e.key) && n > p.flushes[p.files[file].shard], last
}

func (c *surplusReplayCommand) run(ctx context.Context, out output) int {
	files, err := findSurplus(c.DataDir, c.Files, c.Shard)
	if err != nil {
		return out.complain("%v; nothing was sent", err)
	}
	if len(files) == 0 {
		fmt.Fprintln(out.stdout, noSurplus(c.DataDir, c.Shard))
		return cli.Clean
	}
	p := &replayPlan{files: files, pattern: c.Key, all: c.All}
	if err := p.make(ctx); err != nil {
		return out.complain("%v; nothing was sent", err)
	}
	code := cli.Clean
	for _, err := range p.damage {
		code = out.complain("%v", err)
	}
	if len(p.damage) > 0 && !c.Partial {
		return out.complain("nothing was sent: --partial sends what is whole, without these files it is sent by naming the others")
	}
	to, err := openTarget(ctx, c.To)
	if err != nil {
		return out.complain("%v; nothing was sent", err)
	}
	defer to.Close()
	r := &replayer{plan: p, to: to, out: out, dry: c.DryRun, full: c.Full, now: time.Now().UnixMilli()}
	err = r.run(ctx, c.AllowFlush)
	r.summarize()
	if err != nil {
		return out.complain("%v; what was sent may be sent again", err)
	}
	if len(p.flushes) > 0 && !c.AllowFlush {
		code = out.complain("%d shards have a mutation that deletes everything (FLUSHALL), such as at offset %d: it was left out, with what it deleted; --allow-flush empties the primary first", len(p.flushes), p.flushed)
	}
	if p.raw > 0 {
		code = out.complain("%d operations are none that a command brings about, and were left out; replctl surplus show prints them", p.raw)
	}
	return code
}

// openTarget connects to a node, which must be a primary.
func openTarget(ctx context.Context, addr string) (*client.Conn, error) {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c.SetTimeout(askTimeout)
	n, err := c.Status()
	if err == nil && n.Role != "primary" {
		err = fmt.Errorf("%s is a %s", addr, n.Role)
		if n.Primary != "" {
			err = fmt.Errorf("%w, which follows %s", err, n.Primary)
		}
		err = fmt.Errorf("%w: give the address of the primary", err)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
