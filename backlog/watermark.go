package backlog

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-kv/understudy/wire"
)

// watermark is the side file "synced": the offset before which everything is known to be durable. It may lag behind
// the truth and never leads it, so it is written after each sync of the log, in place, and is itself synced only when a
// segment is finished. Recovery uses it to tell a hole that a power loss left (past the watermark) from damage (before it).
//
// Two slots are written in turns, each in a sector of its own, so a torn write costs one of them:
//
//	slot 0 at byte 0, slot 1 at byte 512: magic:4 offset:8 crc:4
type watermark struct {
	file vfs.File
	turn int
	buf  [watermarkSize]byte
}

const (
	watermarkName  = "synced"
	watermarkSize  = 16
	watermarkSlot  = 512
	watermarkMagic = 0x4d575355 // "USWM"
)

// category tells the file system whose writes these are.
const category vfs.DiskWriteCategory = "understudy-log"

func openWatermark(fs vfs.FS, dir string) (*watermark, uint64, error) {
	f, err := fs.OpenReadWrite(fs.PathJoin(dir, watermarkName), category)
	if err != nil {
		return nil, 0, err
	}
	w := &watermark{file: f}
	high, newest, err := readSlots(f)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	w.turn = 1 - newest
	return w, high, nil
}

// readSlots returns the highest offset of the file's slots and which one has it; 0 and slot 1 if none is good.
func readSlots(f vfs.File) (high uint64, newest int, err error) {
	var b [watermarkSlot + watermarkSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	newest = 1
	for i := range 2 {
		if from := i * watermarkSlot; n >= from+watermarkSize {
			if offset, ok := parseWatermark(b[from:]); ok && offset >= high {
				high, newest = offset, i
			}
		}
	}
	return high, newest, nil
}

func parseWatermark(b []byte) (uint64, bool) {
	b = b[:watermarkSize]
	ok := binary.LittleEndian.Uint32(b) == watermarkMagic && binary.LittleEndian.Uint32(b[12:]) == wire.Checksum(0, b[:12])
	return binary.LittleEndian.Uint64(b[4:]), ok
}

// write records that everything before offset is durable. The caller has made it so.
func (w *watermark) write(offset uint64, sync bool) error {
	b := w.buf[:]
	binary.LittleEndian.PutUint32(b, watermarkMagic)
	binary.LittleEndian.PutUint64(b[4:], offset)
	binary.LittleEndian.PutUint32(b[12:], wire.Checksum(0, b[:12]))
	if _, err := w.file.WriteAt(b, int64(w.turn)*watermarkSlot); err != nil {
		return err
	}
	w.turn = 1 - w.turn
	if sync {
		return w.file.SyncData()
	}
	return nil
}
