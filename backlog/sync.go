package backlog

// Sync makes everything that was appended before the call survive power loss. Any goroutine may call it, and callers
// that come while a sync runs share the next one. It waits for no lock that Append, Publish or a reader holds for long,
// and they do not wait for it. After a failed sync the log is broken: what the disk holds is not known any more.
func (l *Log) Sync() error {
	target := l.next.Load()
	s := &l.syncing
	s.Lock()
	defer s.Unlock()
	for {
		if l.durable.Load() >= target {
			return nil
		}
		if err := l.failed(); err != nil {
			return err
		}
		if !s.running {
			break
		}
		s.done.Wait()
	}
	s.running = true
	s.Unlock()
	err := l.syncOnce()
	s.Lock()
	s.running = false
	s.done.Broadcast()
	return err
}

// syncOnce syncs every dirty segment, oldest first, and then the directory if an entry was made. One runs at a time.
func (l *Log) syncOnce() error {
	s := &l.syncing
	s.batch, s.files = s.batch[:0], s.files[:0]
	l.mu.Lock()
	upto, dirDirty := l.next.Load(), l.mu.dirDirty
	l.mu.dirDirty = false
	for _, seg := range l.mu.segments {
		if seg.dirty {
			seg.dirty = false
			seg.pins++
			s.batch, s.files = append(s.batch, seg), append(s.files, seg.file)
		}
	}
	l.mu.Unlock()

	var err error
	for _, f := range s.files {
		if err = f.SyncData(); err != nil {
			break
		}
	}
	if err == nil && dirDirty {
		err = l.syncDir()
	}

	s.files = s.files[:0]
	l.mu.Lock()
	if err == nil {
		l.durable.Store(upto)
	}
	sealed := false
	for i, seg := range s.batch {
		sealed = sealed || seg.sealed
		seg.pins--
		if f := seg.idleLocked(); f != nil {
			s.files = append(s.files, f)
		}
		s.batch[i] = nil
	}
	l.mu.Unlock()
	for i, f := range s.files {
		l.discard(f)
		s.files[i] = nil
	}
	if err != nil {
		return l.fail("syncing", err)
	}
	if err := l.mark.write(upto, sealed); err != nil { // it may lag, so this costs no promise
		l.o.Logger.Warn("recording the synced offset failed", "offset", upto, "error", err)
	}
	return nil
}

func (l *Log) syncDir() error {
	l.dirSync.Lock()
	defer l.dirSync.Unlock()
	return l.dir.Sync()
}
