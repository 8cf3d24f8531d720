// Package commandtest helps to hold Understudy against a real Redis: [Generator] makes random commands of every keyed
// kind, [StartRedis] runs a redis-server for a test, [Conn] talks to either, and [Same] compares replies.
//
// A generator with the same seed makes the same commands, so a failure is repeated by its seed. What it makes never
// depends on the clock: times to live are hours apart from each other and from now, so that two servers which execute a
// command some milliseconds apart decide alike; only the replies of the TTL family differ, by as much, and Same allows
// for that and for nothing else.
package commandtest
