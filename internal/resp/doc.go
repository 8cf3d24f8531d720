// Package resp speaks Redis's serialization protocol, versions 2 and 3: [Parser] reads commands for a server,
// [Writer] builds replies, [Reader] decodes replies for a client.
//
// # Invariants
//
//  1. [ErrShort] is the only result of [Parser.Next] that means "read on". A [*ProtocolError] ends the connection after
//     its text was sent; the texts are Redis 7's.
//  2. Nothing is allocated from a length that was only claimed: a buffer grows by doubling as bytes arrive, so a client
//     that announces 512 MiB and sends ten bytes costs ten bytes.
//  3. What a parser yields does not depend on how the bytes were cut into reads.
//  4. The arguments of all commands parsed since the last [Parser.Fill] stay valid until the next Fill. So a whole pipeline
//     can be parsed first, then executed, then answered with one write, without copying an argument.
//  5. Parsing a command and building a reply allocate nothing once the buffers have grown to the connection's habits.
//
// A server's loop, without its error handling:
//
//	for {
//		p.Fill(conn)
//		for {
//			args, err := p.Next()
//			if err == resp.ErrShort {
//				break
//			}
//			pipeline = append(pipeline, args)
//		}
//		execute(pipeline, &w)
//		conn.Write(w.Buf)
//		w.Buf = w.Buf[:0]
//	}
package resp
