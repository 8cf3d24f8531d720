package replctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/backlog"
	"github.com/understudy-kv/understudy/internal/cli"
	"github.com/understudy-kv/understudy/internal/units"
	"github.com/understudy-kv/understudy/wire"
)

type logCommand struct {
	Dir   string  `arg:"" help:"Data directory of a node, running or stopped, or a directory with segments." placeholder:"DIR"`
	Shard *int    `help:"Only this shard." placeholder:"N"`
	From  *uint64 `help:"Only frames with mutations from this offset on." placeholder:"OFFSET"`
	Check bool    `help:"Print no frames: verify every byte, and tell what is there."`
	JSON  bool    `help:"Print one JSON object a frame." name:"json"`
}

// Validate is called by the parser.
func (c *logCommand) Validate() error {
	if c.Check && c.JSON {
		return errors.New("--check prints no frames, so --json has nothing to print: give one of the two")
	}
	return nil
}

func (c *logCommand) run(ctx context.Context, out output) int {
	logs, err := findLogs(c.Dir, c.Shard)
	if err != nil {
		return out.complain("%v", err)
	}
	code := cli.Clean
	for _, l := range logs {
		if ctx.Err() != nil {
			return out.complain("%v", ctx.Err())
		}
		if err := c.one(ctx, l, out); err != nil {
			code = out.complain("%v", err)
		}
	}
	return code
}

// one prints one shard's log and reports damage in it.
func (c *logCommand) one(ctx context.Context, l logDir, out output) error {
	in, err := inspect(l)
	if err != nil {
		return err
	}
	if c.Check {
		c.summarize(l, in, out)
	} else {
		w := bufio.NewWriterSize(out.stdout, 64<<10)
		p := framePrinter{w: w, shard: l.shard, json: c.JSON}
		for _, s := range in.Segments {
			if c.From != nil && s.Next <= *c.From && s.Next != s.Header.First {
				continue
			}
			if in.Corrupt != nil && s.Header.First > in.Corrupt.Offset {
				break
			}
			if err := p.segment(ctx, s, c.From); err != nil {
				return errors.Join(w.Flush(), err)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if in.Corrupt != nil {
		return in.Corrupt
	}
	return nil
}

// inspect asks again when a live log deleted an old segment meanwhile.
func inspect(l logDir) (in backlog.Inspection, err error) {
	for range 5 {
		in, err = backlog.Inspect(vfs.Default, l.dir, uint32(l.shard), l.powerLost)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return in, err
}

func (c *logCommand) summarize(l logDir, in backlog.Inspection, out output) {
	var bytes int64
	for _, s := range in.Segments {
		bytes += s.Good
	}
	verdict := "every frame is whole"
	if in.Corrupt != nil {
		verdict = "DAMAGED from here on"
	} else if in.Tail > 0 {
		verdict = fmt.Sprintf("%s behind them are an unfinished frame: a write in progress, or one that the next start cuts", units.Human(float64(in.Tail)))
	}
	fmt.Fprintf(out.stdout, "shard %d: offsets [%d, %d) in %d segments, %s, synced before %d: %s\n",
		l.shard, in.Segments[0].Header.First, in.Next, len(in.Segments), units.Human(float64(bytes)), in.Synced, verdict)
}

// segment prints the good frames of one segment. Inspect has verified them.
func (p *framePrinter) segment(ctx context.Context, s backlog.SegmentInfo, from *uint64) (err error) {
	f, err := os.Open(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a live log has just deleted it: nobody needs it
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p.file = filepath.Base(s.Path)
	r := bufio.NewReaderSize(f, 1<<20)
	if _, err := r.Discard(backlog.SegmentHeaderSize); err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	p.header(s)
	for at := int64(backlog.SegmentHeaderSize); at < s.Good; {
		b, err := r.Peek(wire.HeaderSize)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Path, err)
		}
		h, err := wire.ParseHeader(b)
		if err != nil {
			return fmt.Errorf("%s: byte %d: %w", s.Path, at, err)
		}
		if from != nil && h.Next() <= *from {
			if _, err := r.Discard(h.Size()); err != nil {
				return fmt.Errorf("%s: %w", s.Path, err)
			}
		} else if err := p.read(r, h, at); err != nil {
			return fmt.Errorf("%s: byte %d: %w", s.Path, at, err)
		}
		at += int64(h.Size())
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p *framePrinter) read(r io.Reader, h wire.Header, at int64) error {
	if cap(p.buf) < h.Size() {
		p.buf = make([]byte, h.Size())
	}
	p.buf = p.buf[:h.Size()]
	if _, err := io.ReadFull(r, p.buf); err != nil {
		return err
	}
	f, err := wire.ParseFrame(p.buf)
	if err == nil {
		err = f.Check()
	}
	if err != nil {
		return err
	}
	return p.frame(f, at)
}
