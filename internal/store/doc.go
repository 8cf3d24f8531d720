// Package store is a node's data directory: the lock against a second process, the node's identity, and its dataset, which
// is one shard per partition of the keyspace.
//
//	LOCK          held while a process uses the directory; names the holder
//	node.json     the node's id, its replica id, the current dataset and its shard count
//	data-<k>/     one dataset: shard-000/, shard-001/, ...
//	previous/     what the last full sync replaced
//
// A dataset with another shard count is built beside the current one and switched to by replacing node.json, so a crash
// leaves the old dataset or the new.
package store
