package replica

import (
	"errors"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/internal/pagecache"
)

// fileWriter writes staged files, one behind the other, and has the whole ones made durable, beside the receiving of the next
// bytes, so that neither the disk nor the connection waits for the other. One goroutine uses it.
//
// What it has gathered to a block goes past the kernel's page cache, if the file system can do that: a full sync waits
// for the disk in any case, and the copy in memory costs more than everything else that is done with the bytes.
type fileWriter struct {
	fs    vfs.FS
	size  int // of a block
	jobs  chan job
	free  chan []byte
	made  int           // blocks that there are
	bad   chan struct{} // closed with the first error
	ended chan error    // capacity 1: how it went

	file  vfs.File // being written; nil for none
	path  string
	at    int64  // of the block in the file
	block []byte // gathered, and not given to the goroutine yet; nil for none

	// What follows belongs to the goroutine.
	syncer *syncer // of whole files; nil once it has failed
	past   bool    // what is written to the present file goes past the cache
	cached bool    // no file's can
}

// job is a block to be written, or nothing, and what is to be done with the file then.
type job struct {
	file  vfs.File
	path  string
	block []byte
	at    int64
	then  ending
}

type ending uint8

const (
	keepOpen ending = iota
	closeIt
	syncIt // and close it, in the background
)

const (
	// maxBlock is how much is written at once at most, at a multiple of it: the less that is, the slower the disk takes it.
	maxBlock = 1 << 20
	minBlock = 64 << 10
	// blocksMemory is what the blocks of all shards take, about.
	blocksMemory = 48 << 20
	// writeBlocks are the blocks of one writer: one is filled, one is written, and one waits for that.
	writeBlocks = 3
	// maxJobs is how many jobs wait at most: no more than there are blocks, and files that end.
	maxJobs = 8
)

// blockFor is the size of blocks where so many shards are synced at the same time.
func blockFor(shards int) int {
	size := maxBlock
	for size > minBlock && shards*writeBlocks*size > blocksMemory {
		size /= 2
	}
	return size
}

func newFileWriter(fs vfs.FS, size int) *fileWriter {
	w := &fileWriter{
		fs: fs, size: size, jobs: make(chan job, maxJobs), free: make(chan []byte, writeBlocks),
		bad: make(chan struct{}), ended: make(chan error, 1), syncer: newSyncer(fs),
	}
	// The staging starts it with the first byte. It owns the files that it is given, and ends with end, which waits for it.
	go w.run()
	return w
}

// begin takes a file, whose next byte goes to at. The one before must have been finished.
func (w *fileWriter) begin(file vfs.File, path string, at int64) {
	w.file, w.path, w.at = file, path, at
}

// write appends to the file, and waits while the disk does not keep up. It returns false once there is an error, which end tells.
func (w *fileWriter) write(b []byte) bool {
	for len(b) > 0 {
		if w.block == nil && !w.takeBlock() {
			return false
		}
		n := min(len(b), w.size-int((w.at+int64(len(w.block)))%int64(w.size)))
		w.block = append(w.block, b[:n]...)
		b = b[n:]
		if (w.at+int64(len(w.block)))%int64(w.size) == 0 && !w.give(keepOpen) {
			return false
		}
	}
	return true
}

// takeBlock takes a free block. It returns false once there is an error.
func (w *fileWriter) takeBlock() bool {
	select {
	case w.block = <-w.free:
		return true
	default:
	}
	if w.made < writeBlocks {
		w.made++
		w.block = pagecache.Buffer(w.size)
		return true
	}
	select {
	case w.block = <-w.free:
		return true
	case <-w.bad:
		return false
	}
}

// finish ends with the file that is being written, if there is one: it is closed, and synced before if it is whole. It returns false once
// there is an error.
func (w *fileWriter) finish(whole bool) bool {
	switch {
	case w.file == nil:
		return true
	case whole:
		return w.give(syncIt)
	}
	return w.give(closeIt)
}

// sync takes a whole file, to be synced and closed. It returns false, and has closed it, once there is an error.
func (w *fileWriter) sync(file vfs.File, path string) bool {
	w.begin(file, path, 0)
	return w.finish(true)
}

// give hands over what was gathered of the file, and the file with it unless it stays open. It returns false, and has closed the file,
// once there is an error.
func (w *fileWriter) give(then ending) bool {
	j := job{file: w.file, path: w.path, block: w.block, at: w.at, then: then}
	w.at += int64(len(w.block))
	w.block = nil
	if then != keepOpen {
		w.file = nil
	}
	select {
	case <-w.bad: // and there may be room
	case w.jobs <- j:
		return true
	}
	if then != keepOpen {
		_ = j.file.Close() // what of it is there, whoever finds it looks at
	}
	return false
}

// end waits until everything is written, and every whole file synced and closed, or tells why not. It is called once, and closes
// the file that is being written.
func (w *fileWriter) end() error {
	w.finish(false)
	close(w.jobs)
	return <-w.ended
}

// run is the writer's goroutine.
func (w *fileWriter) run() {
	var err error
	for j := range w.jobs {
		failed := err != nil
		if !failed && len(j.block) > 0 {
			err = w.put(j)
		}
		if j.block != nil {
			w.free <- j.block[:0] // there is room for all of them
		}
		if j.then != keepOpen {
			err = w.close(j, err)
		}
		if !failed && err != nil {
			close(w.bad)
		}
	}
	if w.syncer != nil {
		err = errors.Join(err, w.syncer.end())
	}
	w.ended <- err
}

// put writes a block, past the cache if it is whole.
func (w *fileWriter) put(j job) error {
	past := w.bypass(j.file, len(j.block) == w.size)
	_, err := j.file.WriteAt(j.block, j.at)
	if past && errors.Is(err, syscall.EINVAL) { // larger blocks, or not supported after all
		w.cached = true
		w.bypass(j.file, false)
		_, err = j.file.WriteAt(j.block, j.at)
	}
	return err
}

// bypass sees to it that the file is written past the cache, or is not, and reports which.
func (w *fileWriter) bypass(f vfs.File, on bool) bool {
	if on = on && !w.cached; on != w.past {
		done := pagecache.Bypass(f, on)
		w.past = on && done
		w.cached = w.cached || on && !done
	}
	return w.past
}

// close ends with a file behind its last job, and returns the first error that there was.
func (w *fileWriter) close(j job, err error) error {
	w.past = false // of the next one
	if err != nil || j.then != syncIt {
		_ = j.file.Close() // whoever finds it looks at what is there
		return err
	}
	if w.syncer.add(j.file, j.path) {
		return nil
	}
	_ = j.file.Close()
	err = w.syncer.end()
	w.syncer = nil
	return err
}
