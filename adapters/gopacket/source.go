// SPDX-License-Identifier: BSD-3-Clause

// Package rtapsource has gopacket read what the kernel sends on an rtap port:
//
//	dev, err := rtap.Start(rtap.Config{Name: "tap0"})
//	…
//	src, err := rtapsource.New(ctx, dev, 0)
//	…
//	defer src.Close()
//	for packet := range gopacket.NewPacketSource(src, src.LinkType()).Packets() {
//		fmt.Println(packet)
//	}
//
// It is a module of its own because of that dependency. With ZeroCopyReadPacketData nothing is copied, or allocated.
package rtapsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// Source reads a port's Rx queue. Its methods may be called by any goroutine; one at a time reads.
type Source struct {
	dev    *rtap.Device
	queue  *rtap.RxQueue
	index  int
	link   layers.LinkType
	ctx    context.Context // ends with New's, and with Close
	cancel context.CancelFunc
	why    atomic.Pointer[error] // why there is nothing any more

	mu    sync.Mutex // held while reading, also while that waits
	batch [rtap.DefaultBurst]*mbuf.Mbuf
	next  int // batch[next:end] was received and not yet read
	end   int
	at    time.Time // when
	chain []byte    // a packet of several mbufs, in one piece
}

var (
	_ gopacket.PacketDataSource         = (*Source)(nil)
	_ gopacket.ZeroCopyPacketDataSource = (*Source)(nil)
)

// New makes a Source of a port's Rx queue, which nobody else may poll from then on. The end of ctx ends reading. It is an error if
// the port has no such queue; it need not be started yet. The port is not closed with the Source: close the Source first, so that
// its mbufs are back.
func New(ctx context.Context, dev *rtap.Device, queue int) (*Source, error) {
	q := dev.RxQueue(queue)
	if q == nil {
		return nil, fmt.Errorf("source of %s: rx queue %d: %w", dev.Name(), queue, rtap.ErrNotConfigured)
	}
	info := dev.Info()
	s := &Source{dev: dev, queue: q, index: info.IfIndex, link: layers.LinkTypeEthernet}
	if info.Mode == rtap.ModeTUN {
		s.link = layers.LinkTypeRaw
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s, nil
}

// LinkType is what packets begin with: Ethernet, or of a TUN Raw, an IP header. It is the decoder for gopacket, and what a
// capture file wants to know.
func (s *Source) LinkType() layers.LinkType { return s.link }

// ReadPacketData returns the next packet in memory of its own, and waits for one. After Close or the
// context's end, and when the port was closed or its interface deleted, the error is io.EOF, at which a gopacket.PacketSource
// ends; Err tells which it was.
//
// The time is when the burst was received that brought the packet. Data is what the kernel sent; a checksum that it left to the
// port, because offloads are enabled, is completed, and a frame of several segments (LRO) stays one. Tags that
// the port strips are not there.
func (s *Source) ReadPacketData() (data []byte, ci gopacket.CaptureInfo, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ci, err := s.read()
	if err != nil {
		return nil, ci, err
	}
	return m.AppendTo(make([]byte, 0, ci.Length)), ci, nil
}

// ZeroCopyReadPacketData is ReadPacketData without a copy: the data is valid until the next call of either, or of Close.
// Nothing is allocated.
func (s *Source) ZeroCopyReadPacketData() (data []byte, ci gopacket.CaptureInfo, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ci, err := s.read()
	switch {
	case err != nil:
		return nil, ci, err
	case m.IsContiguous():
		return m.Bytes(), ci, nil
	}
	s.chain = m.AppendTo(s.chain[:0])
	return s.chain, ci, nil
}

// read is the next packet, which stays in the batch until that is freed.
func (s *Source) read() (*mbuf.Mbuf, gopacket.CaptureInfo, error) {
	if s.next == s.end || s.ctx.Err() != nil {
		s.free()
		if err := s.fill(); err != nil {
			return nil, gopacket.CaptureInfo{}, s.ended(err)
		}
	}
	m := s.batch[s.next]
	s.next++
	header.Complete(m)
	n := int(m.PktLen)
	return m, gopacket.CaptureInfo{Timestamp: s.at, CaptureLength: n, Length: n, InterfaceIndex: s.index}, nil
}

// fill waits for packets.
func (s *Source) fill() error {
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if s.end = s.queue.Burst(s.batch[:]); s.end > 0 {
			s.at = time.Now()
			return nil
		}
		if err := s.queue.Wait(s.ctx); err != nil {
			return err
		}
	}
}

func (s *Source) free() {
	mbuf.FreeBulk(s.batch[:s.end])
	s.next, s.end = 0, 0
}

// ended is err, or io.EOF if that is for ever. A port that is merely stopped may be started again.
func (s *Source) ended(err error) error {
	if errors.Is(err, rtap.ErrStopped) {
		return err
	}
	if s.ctx.Err() == nil {
		s.why.CompareAndSwap(nil, &err)
	}
	return io.EOF
}

// Err is why io.EOF was returned, such as rtap.ErrGone: nil before that, and after Close or the context's end.
func (s *Source) Err() error {
	if err := s.why.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends a read that waits, and all later ones, and gives back what was received and not read. Closing again does nothing.
func (s *Source) Close() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free()
}
