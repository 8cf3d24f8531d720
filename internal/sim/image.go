package sim

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// image is what a disk holds: directories, and files with their bytes, by path.
type image struct {
	dirs  map[string]bool
	files map[string][]byte
}

// read takes an image of a file system.
func read(fs *vfs.MemFS) image {
	m := image{map[string]bool{}, map[string][]byte{}}
	m.walk(fs, "/")
	return m
}

func (m image) walk(fs *vfs.MemFS, dir string) {
	m.dirs[dir] = true
	names, err := fs.List(dir)
	must(err)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		must(err)
		if info.IsDir() {
			m.walk(fs, path)
			continue
		}
		f, err := fs.Open(path)
		must(err)
		m.files[path], err = io.ReadAll(f)
		must(err)
		must(f.Close())
	}
}

// write makes a file system with the image on it, all of it synced.
func (m image) write() *vfs.MemFS {
	fs := vfs.NewCrashableMem()
	dirs := slices.Sorted(maps.Keys(m.dirs))
	for _, dir := range dirs {
		must(fs.MkdirAll(dir, 0o755))
	}
	for _, path := range slices.Sorted(maps.Keys(m.files)) {
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		must(err)
		_, err = f.Write(m.files[path])
		must(err)
		must(f.Sync())
		must(f.Close())
	}
	for _, dir := range dirs {
		d, err := fs.OpenDir(dir)
		must(err)
		must(d.Sync())
		must(d.Close())
	}
	return fs
}

// blockSize is the piece of a file that survives a loss of power, or does not.
const blockSize = 4096

// killed is what a machine finds after a process's death: everything that was written.
func (d *disk) killed() *vfs.MemFS {
	d.still.Lock()
	defer d.still.Unlock()
	return read(d.mem).write()
}

// unplugged is what it finds after a loss of power: what was synced, and of the rest each block with a probability of
// percent. Directory entries that were not synced survive in the order in which they were made, as on a file system with
// a journal: those of one directory up to a random one.
func (d *disk) unplugged(percent int, rng *rand.Rand) *vfs.MemFS {
	d.still.Lock()
	defer d.still.Unlock()
	out := read(d.mem.CrashClone(vfs.CrashCloneCfg{}))
	if percent == 0 {
		return out.write()
	}
	now := read(d.mem)
	keep := func() bool { return rng.IntN(100) < percent }
	fresh := map[string][]string{} // entries that are not those that were synced, by directory
	for _, path := range slices.Sorted(maps.Keys(now.files)) {
		old, there := out.files[path]
		if b := now.files[path]; there && bytes.HasPrefix(b, old) {
			out.files[path] = mix(old, b, keep)
			continue
		}
		fresh[parent(path)] = append(fresh[parent(path)], path)
	}
	for _, dir := range slices.Sorted(maps.Keys(now.dirs)) {
		if !out.dirs[dir] {
			fresh[parent(dir)] = append(fresh[parent(dir)], dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(fresh)) { // a directory comes before what is in it
		if !out.dirs[dir] {
			continue
		}
		slices.SortStableFunc(fresh[dir], func(a, b string) int { return d.entered(a) - d.entered(b) })
		for _, path := range fresh[dir] {
			if !keep() {
				break
			}
			if now.dirs[path] {
				out.dirs[path] = true
				continue
			}
			// Files that replace others are made under another name, synced and renamed.
			out.files[path] = now.files[path]
		}
	}
	return out.write()
}

// mix lays blocks of now over old. Blocks behind the end that did not survive are zeros.
func mix(old, now []byte, keep func() bool) []byte {
	out := slices.Clone(old)
	for i := 0; i < len(now); i += blockSize {
		if !keep() {
			continue
		}
		block := now[i:min(i+blockSize, len(now))]
		if grow := i + len(block) - len(out); grow > 0 {
			out = append(out, make([]byte, grow)...)
		}
		copy(out[i:], block)
	}
	return out
}

func parent(path string) string { return vfs.Default.PathDir(path) }

// must is for the file system in memory, which does not fail by itself.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("sim: %v", err))
	}
}
