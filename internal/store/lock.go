package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lockDir takes the directory's lock, and notes the holder beside it for whoever comes second.
func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	holder := fs.PathJoin(dir, "LOCK.pid")
	lock, err := fs.Lock(fs.PathJoin(dir, "LOCK"))
	if err != nil {
		text := ""
		if f, openErr := fs.Open(holder); openErr == nil {
			b, _ := io.ReadAll(io.LimitReader(f, 32)) // the pid is only a help; without it the error still says enough
			text = " by process " + strings.TrimSpace(string(b))
			_ = f.Close()
		}
		return nil, fmt.Errorf("data directory %s is in use%s: stop that process first, or give this one a directory of its own (%w)", dir, text, err)
	}
	f, err := fs.Create(holder, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", dir, err), lock.Close())
	}
	return lock, nil
}
