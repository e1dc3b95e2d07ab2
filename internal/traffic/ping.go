// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// PingConfig describes a series of pings.
type PingConfig struct {
	NS        *netns.NS
	Dst       netip.Addr    // IPv4, or IPv6 with its zone if it needs one
	Count     int           // default 1
	Interval  time.Duration // from one request to the next; 0 sends the next when the reply is there
	Timeout   time.Duration // for one reply, default 1 s
	SizeBytes int           // payload, up to 65507; default 56; negative means none
	// Spin asks for the reply again and again instead of sleeping, and passes the interval likewise, so
	// that the time in which this CPU falls asleep and wakes up is not measured. It takes a CPU of its own.
	Spin bool
}

// PingResult is what became of the requests.
type PingResult struct {
	Sent int
	RTTs []time.Duration // of the replies that came in time, in the order of the requests
	// Unreachable is the last error that was reported instead of a reply, such as EHOSTUNREACH.
	Unreachable error
}

// Lost is how many requests had no reply in time.
func (r PingResult) Lost() int { return r.Sent - len(r.RTTs) }

// Quantile returns the round-trip time that the fraction q, 0 to 1, of the replies did not exceed: 0 is
// the fastest, 0.5 the median, 1 the slowest. It is 0 without replies.
func (r PingResult) Quantile(q float64) time.Duration {
	if len(r.RTTs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r.RTTs))
	return s[int(min(max(q, 0), 1)*float64(len(s)-1)+0.5)]
}

func (cfg *PingConfig) defaults() error {
	if cfg.Count <= 0 {
		cfg.Count = 1
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Second
	}
	switch {
	case cfg.SizeBytes == 0:
		cfg.SizeBytes = 56
	case cfg.SizeBytes < 0:
		cfg.SizeBytes = 0
	case cfg.SizeBytes > 65507:
		return fmt.Errorf("SizeBytes is %d; a ping carries at most 65507 bytes", cfg.SizeBytes)
	}
	if !cfg.Dst.IsValid() {
		return fmt.Errorf("no address to ping")
	}
	cfg.Dst = cfg.Dst.Unmap()
	return nil
}

// ICMP echo messages: RFC 792 and RFC 4443, section 4.
const (
	echoHeaderLen = 8
	echoRequest4  = 8
	echoReply4    = 0
	echoRequest6  = 128
	echoReply6    = 129
)

// echo is the request and reply of a series.
type echo struct {
	request, reply byte
	v4             bool
	id             uint16
	buf            []byte // the request
}

func newEcho(dst netip.Addr, id uint16, size int) *echo {
	e := &echo{request: echoRequest6, reply: echoReply6, v4: dst.Is4(), id: id, buf: make([]byte, echoHeaderLen+size)}
	if e.v4 {
		e.request, e.reply = echoRequest4, echoReply4
	}
	copy(e.buf[echoHeaderLen:], chunk(int64(id), size))
	return e
}

// encode returns the request with that number, valid until the next.
func (e *echo) encode(seq uint16) []byte {
	e.buf[0], e.buf[1], e.buf[2], e.buf[3] = e.request, 0, 0, 0
	binary.BigEndian.PutUint16(e.buf[4:], e.id)
	binary.BigEndian.PutUint16(e.buf[6:], seq)
	if e.v4 { // for IPv6 the kernel does it
		binary.BigEndian.PutUint16(e.buf[2:], checksum(e.buf))
	}
	return e.buf
}

// matches reports whether a message received, with its IP header for IPv4, is the reply to the request
// with that number, with the same payload.
func (e *echo) matches(b []byte, seq uint16) bool {
	if e.v4 {
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return false
		}
		b = b[int(b[0]&15)*4:]
	}
	return len(b) == len(e.buf) && b[0] == e.reply && b[1] == 0 &&
		binary.BigEndian.Uint16(b[4:]) == e.id && binary.BigEndian.Uint16(b[6:]) == seq &&
		bytes.Equal(b[echoHeaderLen:], e.buf[echoHeaderLen:])
}

// checksum is the Internet checksum, RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
