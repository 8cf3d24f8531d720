// Package safefile keeps small files that must be whole: each is replaced atomically and ends with its own checksum.
// Its functions may be called from any goroutine, for different files.
package safefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// Write replaces the file: after a crash at any instant it holds the old content or the new one, whole. The
// content ends with a line that carries its CRC32C, which [Read] tests.
func Write(fs vfs.FS, dir, name string, content []byte) error {
	tmp := fs.PathJoin(dir, name+".tmp")
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	sealed := append(bytes.TrimRight(bytes.Clone(content), "\n"), '\n')
	sealed = fmt.Appendf(sealed, "crc32c %08x\n", wire.Checksum(0, sealed))
	_, err = f.Write(sealed)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.Rename(tmp, fs.PathJoin(dir, name))
	}
	if err != nil {
		return err
	}
	return SyncDir(fs, dir)
}

// Read reads what [Write] wrote. The error is os.ErrNotExist's kind if there is no such file.
func Read(fs vfs.FS, dir, name string) ([]byte, error) {
	path := fs.PathJoin(dir, name)
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sealed, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	i := bytes.LastIndex(sealed, []byte("\ncrc32c "))
	if i < 0 {
		return nil, fmt.Errorf("%s is damaged: its checksum line is missing; restore it from a backup, or empty the data directory and let it sync again", path)
	}
	content, line := sealed[:i+1], sealed[i+1:]
	if want := fmt.Sprintf("crc32c %08x\n", wire.Checksum(0, content)); want != string(line) {
		return nil, fmt.Errorf("%s is damaged: its checksum line is %q, its content has %q; restore it from a backup, or empty the data directory and let it sync again", path, line, want)
	}
	return content, nil
}

// MakeDir makes a directory, and its parents if need be. What it makes survives a power loss.
func MakeDir(fs vfs.FS, dir string) error {
	var made []string
	for d := dir; ; d = fs.PathDir(d) {
		_, err := fs.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || d == fs.PathDir(d) {
			return err
		}
		made = append(made, d)
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range made {
		if err := SyncDir(fs, fs.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the directory's entries durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
