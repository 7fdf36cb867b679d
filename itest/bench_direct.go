package itest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// streams is one long stream of a plain host's to each other, for whole blocks:
// one copy, one hop, and nothing is announced. What receivers then do with a
// block is raw's.
type streams struct{ queues []chan []byte }

const directProtocol = "/bench/direct"

// hears makes a host take blocks: 8 bytes of length, and the message that raw
// publishes.
func hears(h host.Host, take func(data []byte) error, fail func(error)) {
	h.SetStreamHandler(directProtocol, func(s network.Stream) {
		in := bufio.NewReaderSize(s, 16<<10)
		for {
			var head [8]byte
			_, err := io.ReadFull(in, head[:])
			if err != nil {
				_ = s.Close() // the other side has ended it
				return
			}
			data := make([]byte, binary.BigEndian.Uint64(head[:]))
			if _, err = io.ReadFull(in, data); err == nil {
				err = take(data)
			}
			if err != nil {
				_ = s.Reset() // nothing more is read from it
				fail(err)
				return
			}
		}
	})
}

// direct opens the first host's streams and starts their writers, which end with
// ctx.
func (r *raw) direct(ctx context.Context) error {
	for _, h := range r.hosts[1:] {
		s, err := r.hosts[0].NewStream(ctx, h.ID(), directProtocol)
		if err != nil {
			return fmt.Errorf("opening a stream: %w", err)
		}
		queue := make(chan []byte, 256)
		r.streams.queues = append(r.streams.queues, queue)
		r.listen.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = s.Reset() })() // nobody reads what is left
			for {
				select {
				case data := <-queue:
					head := binary.BigEndian.AppendUint64(nil, uint64(len(data)))
					_, err := s.Write(head)
					if err == nil {
						_, err = s.Write(data)
					}
					if err != nil {
						if ctx.Err() == nil {
							r.fail(err)
						}
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return nil
}

// deliver queues a block for all others.
func (s *streams) deliver(data []byte) error {
	for _, q := range s.queues {
		select {
		case q <- data:
		default:
			return errors.New("a stream is too slow")
		}
	}
	return nil
}
