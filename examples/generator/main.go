// SPDX-License-Identifier: BSD-3-Clause

// Command generator sends UDP packets to the kernel, or through it, from a TUN interface that it makes:
//
//	generator -name gen0 -to 198.18.0.1:9 -size 64 -rate 100000
//
// Give the interface the address (ip address add 198.18.0.1/24 dev gen0), or have the kernel forward. Each packet's
// payload begins with its number, 8 bytes. It ends with Ctrl-C, after -count packets, or when gen0 is deleted.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/packetio"
)

const (
	headers = 20 + 8 // IPv4, UDP
	minSize = headers + 8
)

// load is what to send.
type load struct {
	from, to netip.AddrPort
	size     int    // bytes of a packet, with the IP header
	count    uint64 // 0: no end
	rate     uint64 // packets a second, 0: as many as can be
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	name := flag.String("name", "gen0", "`NAME` of the interface")
	from := flag.String("from", "198.18.0.2:9", "source, `ADDRESS:PORT`")
	to := flag.String("to", "198.18.0.1:9", "destination, `ADDRESS:PORT`")
	size := flag.Int("size", 64, "`BYTES` of a packet, with its IP header")
	count := flag.Uint64("count", 0, "`PACKETS` to send; 0: until Ctrl-C")
	rate := flag.Uint64("rate", 0, "`PACKETS` a second; 0: as many as can be")
	flag.Parse()
	l := load{size: *size, count: *count, rate: *rate}
	var err, err2 error
	l.from, err = netip.ParseAddrPort(*from)
	l.to, err2 = netip.ParseAddrPort(*to)
	if err := errors.Join(err, err2, l.check()); err != nil {
		log.Fatal(err)
	}
	conn, err := packetio.Open(rtap.Config{Name: *name, Mode: rtap.ModeTUN})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	sent, err := run(ctx, conn, l)
	seconds := time.Since(begin).Seconds()
	fmt.Printf("%d packets in %.1f s, %.0f a second\n", sent, seconds, float64(sent)/seconds)
	if err != nil {
		log.Print(err)
	}
}

func (l *load) check() error {
	switch {
	case !l.from.Addr().Is4() || !l.to.Addr().Is4():
		return fmt.Errorf("from %s to %s: want IPv4 addresses", l.from, l.to)
	case l.size < minSize || l.size > rtap.MaxTunMTU:
		return fmt.Errorf("size is %d bytes: want %d to %d", l.size, minSize, rtap.MaxTunMTU)
	}
	return nil
}

// run sends l and returns how many packets that were.
func run(ctx context.Context, conn *packetio.Conn, l load) (sent uint64, err error) {
	packets := packetio.Buffers(rtap.DefaultBurst, l.size)
	for _, p := range packets {
		l.fill(p)
	}
	for begin := time.Now(); ctx.Err() == nil && (l.count == 0 || sent < l.count); {
		n := uint64(len(packets))
		if l.count != 0 {
			n = min(n, l.count-sent)
		}
		for i, p := range packets[:n] {
			binary.BigEndian.PutUint64(p[headers:], sent+uint64(i))
		}
		k, err := conn.WritePackets(packets[:n])
		sent += uint64(k)
		if err != nil {
			return sent, err
		}
		if l.rate != 0 {
			due := begin.Add(time.Duration(float64(sent) / float64(l.rate) * float64(time.Second)))
			sleep(ctx, time.Until(due))
		}
	}
	return sent, nil
}

// fill writes the headers of a packet. IPv4's UDP may do without a checksum (RFC 768).
func (l *load) fill(p []byte) {
	copy(p, []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17})
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], l.from.Addr().AsSlice())
	copy(p[16:], l.to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[10:], header.IPv4Checksum(p[:20]))
	binary.BigEndian.PutUint16(p[20:], l.from.Port())
	binary.BigEndian.PutUint16(p[22:], l.to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(len(p)-20))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
