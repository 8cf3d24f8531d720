package node

// roleLock is a mutex that is held through waits for links and for other nodes. It is a channel because testing/synctest
// takes a goroutine that waits for a sync.Mutex for one that is about to go on: simulated time would stand still for as
// long as the holder waits for it to pass.
type roleLock chan struct{}

func newRoleLock() roleLock { return make(roleLock, 1) }

func (l roleLock) Lock()   { l <- struct{}{} }
func (l roleLock) Unlock() { <-l }

func (l roleLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
