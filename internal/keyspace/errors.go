package keyspace

import (
	"errors"
	"fmt"
	"github.com/understudy-kv/understudy/internal/command"
	"github.com/understudy-kv/understudy/internal/engine"
	"github.com/understudy-kv/understudy/internal/shard"
	"strings"
	"syscall"
)

// The replies that are not a command's own. Where Redis has the reply, the text is Redis 7's.
const (
	errLoading     = "LOADING Redis is loading the dataset in memory"
	errReadOnly    = "READONLY You can't write against a read only replica."
	errMasterDown  = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
	errNoReplicas  = "NOREPLICAS Not enough good replicas to write."
	errTooOld      = "STALE this replica's data may be more than %s old, which replica-max-staleness does not allow: read from another node, or wait"
	errExecAbort   = "EXECABORT Transaction discarded because of previous errors."
	execAbort      = "EXECABORT Transaction discarded because of: "
	errNestedMulti = "ERR MULTI calls can not be nested"
	errWatchMulti  = "ERR WATCH inside MULTI is not allowed"
	errExecNoMulti = "ERR EXEC without MULTI"
	errDiscard     = "ERR DISCARD without MULTI"
	errNoMulti     = "ERR Command not allowed inside a transaction"
	errSyntax      = "ERR syntax error"
	errNotInteger  = "ERR value is not an integer or out of range"
	errCursor      = "ERR invalid cursor"
	errNoHook      = "ERR this command belongs to a connection, and there is none here"
	errTooLarge    = "ERR the command changes more than 1 GiB at once, which does not fit in one mutation: split it"
	errReplyLarge  = command.ErrReplyTooLarge
	errQueueLarge  = "ERR the transaction is over 1 GiB: split it"
)

// shardErrorText is what a client is told when a shard did not take its command: which shard, why, and the way out. It
// is never told OK.
func shardErrorText(id int, err error) string {
	cause := strings.TrimPrefix(err.Error(), fmt.Sprintf("shard %d: ", id))
	switch {
	case errors.Is(err, shard.ErrClosed), errors.Is(err, shard.ErrUnsettled):
		return errLoading
	case errors.Is(err, shard.ErrFollows):
		return errReadOnly
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("MISCONF shard %d takes no writes: %s. Make room on its disk, or lower backlog-disk; writes go on by themselves then, and reads go on meanwhile.", id, cause)
	}
	return fmt.Sprintf("MISCONF shard %d takes no writes: %s. Whether this write survives is not known. Reads go on; mend the cause (see the log) and restart the process.", id, cause)
}

// readErrorText is what a client is told when a shard could not be read.
func readErrorText(id int, err error) string {
	if errors.Is(err, shard.ErrClosed) || errors.Is(err, shard.ErrUnsettled) || errors.Is(err, engine.ErrClosed) {
		return errLoading
	}
	return fmt.Sprintf("ERR shard %d cannot be read: %v. See the log; restore its directory, or empty it and let it sync again.", id, err)
}
