package replctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-kv/understudy/wire"
)

// surplusFile is what a node saved of one shard before it rejoined: the frames that only it had, as on the wire. Its name
// has all but the frames, shard-NNN-<generation>-<first>-<next>.frames.
type surplusFile struct {
	path        string
	shard       int
	generation  wire.Generation // at next; the frames may have begun in an older one
	first, next uint64
	began       int64 // when its first frame was committed, microseconds since 1970; 0 if that cannot be read
}

// surplusDamage is where a file stops being readable. Everything before it is whole.
type surplusDamage struct {
	path string
	at   int64  // the byte at which the first bad frame begins
	next uint64 // the offset behind the last whole one
	want uint64 // the offset at which the file should end
	cut  bool   // the file ends there: it was cut, or is being written
	err  error
}

func (d *surplusDamage) Error() string {
	what := "is damaged"
	if d.cut {
		what = "is cut off"
	}
	return fmt.Sprintf("%s %s at byte %d: %v; its frames are whole up to offset %d and should go on to %d", d.path, what, d.at, d.err, d.next, d.want)
}

func (d *surplusDamage) Unwrap() error { return d.err }

const (
	surplusDir    = "surplus"
	surplusSuffix = ".frames"
)

// parseSurplusName takes a file's name apart.
func parseSurplusName(path string) (f surplusFile, err error) {
	f.path = path
	base, ok := strings.CutSuffix(filepath.Base(path), surplusSuffix)
	part := strings.Split(base, "-")
	if ok = ok && len(part) == 5 && part[0] == "shard"; ok {
		var errs [4]error
		f.shard, errs[0] = strconv.Atoi(part[1])
		f.generation, errs[1] = wire.ParseGeneration(part[2])
		f.first, errs[2] = strconv.ParseUint(part[3], 10, 64)
		f.next, errs[3] = strconv.ParseUint(part[4], 10, 64)
		ok = errors.Join(errs[:]...) == nil && f.shard >= 0 && f.first <= f.next
	}
	if !ok {
		return f, fmt.Errorf("%s is not named as a surplus file is, shard-NNN-<generation>-<first>-<next>%s: give it the name back that it was saved under, which tells its shard and its history", path, surplusSuffix)
	}
	return f, nil
}

// findSurplus finds the surplus files of a node's data directory, or of the folder itself, or those that are named: in the
// order of their shards, and within one in the order in which their mutations were committed. The result may be empty.
func findSurplus(dir string, names []string, only *int) (files []surplusFile, err error) {
	paths, err := surplusPaths(dir, names)
	if err != nil {
		return nil, err
	}
	var bad []error
	for _, p := range paths {
		f, err := parseSurplusName(p)
		if err == nil && only != nil && f.shard != *only {
			continue
		}
		if err == nil {
			f.began, err = firstCommit(p)
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b surplusFile) int {
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.began, b.began), cmp.Compare(a.first, b.first), cmp.Compare(a.path, b.path))
	})
	return files, errors.Join(bad...)
}

func surplusPaths(dir string, names []string) (paths []string, err error) {
	if dir == "" {
		return names, nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; give the data directory of a node", dir)
	}
	if len(names) > 0 {
		for _, n := range names {
			if _, err := os.Stat(n); errors.Is(err, fs.ErrNotExist) && !strings.ContainsRune(n, filepath.Separator) {
				n = filepath.Join(dir, surplusDir, n)
			}
			paths = append(paths, n)
		}
		return paths, nil
	}
	if paths, err = framesIn(dir); err != nil || len(paths) > 0 {
		return paths, err
	}
	paths, err = framesIn(filepath.Join(dir, surplusDir))
	if !errors.Is(err, fs.ErrNotExist) {
		return paths, err
	}
	if _, err := os.Stat(filepath.Join(dir, "node.json")); err != nil && filepath.Base(filepath.Clean(dir)) != surplusDir {
		return nil, fmt.Errorf("%s is no data directory of a node (it would have a node.json), and no directory with surplus files (*%s)", dir, surplusSuffix)
	}
	return nil, nil
}

// framesIn lists the surplus files in a directory. It is no glob, since a path may hold a glob's letters.
func framesIn(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), surplusSuffix) && !e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// firstCommit is when the first frame was committed. Damage is for [surplusFile.frames] to tell.
func firstCommit(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	b := make([]byte, wire.HeaderSize)
	_, err = io.ReadFull(f, b)
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	h, err := wire.ParseHeader(b)
	if err != nil {
		return 0, nil
	}
	return h.Commit, nil
}

// frames calls each with every frame, in order, after verifying it, and with the byte at which it begins. The frame is
// valid during the call only. A [surplusDamage] is the error for a file that is not whole.
func (s surplusFile) frames(ctx context.Context, each func(f wire.Frame, at int64) error) (err error) {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(file, 1<<20)
	var buf []byte
	next, at := s.first, int64(0)
	for at < info.Size() {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := s.frame(r, &buf, next, info.Size()-at)
		if err != nil {
			if errors.Is(err, errRead) {
				return fmt.Errorf("%s: byte %d: %w", s.path, at, err)
			}
			return &surplusDamage{path: s.path, at: at, next: next, want: s.next, cut: errors.Is(err, wire.ErrShort), err: err}
		}
		if err := each(f, at); err != nil {
			return err
		}
		next, at = f.Next(), at+int64(f.Size())
	}
	if next != s.next {
		return &surplusDamage{path: s.path, at: at, next: next, want: s.next, cut: true, err: errors.New("there are no more frames")}
	}
	return nil
}

// errRead means that the disk did not give the bytes, which says nothing about them.
var errRead = errors.New("reading")

// frame reads and verifies one frame, which must begin at offset next. left is how many bytes the file still has.
func (s surplusFile) frame(r *bufio.Reader, buf *[]byte, next uint64, left int64) (f wire.Frame, err error) {
	head, err := r.Peek(int(min(left, wire.HeaderSize)))
	if err != nil {
		return f, fmt.Errorf("%w: %w", errRead, err)
	}
	h, err := wire.ParseHeader(head)
	switch {
	case err != nil:
		return f, err
	case h.Kind != wire.KindMutations:
		return f, fmt.Errorf("a %s frame, where only mutations belong", h.Kind)
	case h.First != next:
		return f, fmt.Errorf("a frame that begins at offset %d, where %d comes next", h.First, next)
	case h.Next() > s.next:
		return f, fmt.Errorf("a frame that ends at offset %d, where the file's name says %d", h.Next(), s.next)
	case int64(h.Size()) > left:
		return f, fmt.Errorf("%w: a frame of %d bytes, of which there are %d", wire.ErrShort, h.Size(), left)
	}
	if cap(*buf) < h.Size() {
		*buf = make([]byte, h.Size())
	}
	b := (*buf)[:h.Size()]
	if _, err := io.ReadFull(r, b); err != nil {
		return f, fmt.Errorf("%w: %w", errRead, err)
	}
	if f, err = wire.ParseFrame(b); err == nil {
		err = f.Check()
	}
	return f, err
}
