// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// pcapPacket is a packet of a pcap file.
type pcapPacket struct {
	at     int64 // nanoseconds of Unix time
	length int   // of the packet, of which data is the beginning
	data   []byte
}

// parsePcap reads a file by what pcap-savefile(5) says. An error is of what comes after the packets.
func parsePcap(b []byte) (snapLen int, packets []pcapPacket, err error) {
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint32(b) != 0xa1b23c4d || le.Uint16(b[4:]) != 2 || le.Uint16(b[6:]) != 4 || le.Uint32(b[20:]) != 1 {
		return 0, nil, fmt.Errorf("header is %x", b[:min(24, len(b))])
	}
	snapLen = int(le.Uint32(b[16:]))
	for b = b[24:]; len(b) > 0; {
		if len(b) < 16 {
			return snapLen, packets, fmt.Errorf("%d bytes left over", len(b))
		}
		n := int(le.Uint32(b[8:]))
		p := pcapPacket{at: int64(le.Uint32(b))*1e9 + int64(le.Uint32(b[4:])), length: int(le.Uint32(b[12:]))}
		if b = b[16:]; n > len(b) || n > snapLen || n > p.length {
			return snapLen, packets, fmt.Errorf("a packet of %d bytes, of %d, with %d left and a snapshot length of %d", n, p.length, len(b), snapLen)
		}
		p.data, b = b[:n], b[n:]
		packets = append(packets, p)
	}
	return snapLen, packets, nil
}

// readPcap reads a whole file.
func readPcap(t *testing.T, b []byte) (int, []pcapPacket) {
	t.Helper()
	snapLen, packets, err := parsePcap(b)
	if err != nil {
		t.Fatal(err)
	}
	return snapLen, packets
}

// newPool makes a pool that must be full again at the end of the test.
func newPool(t *testing.T, c mbuf.Config) *mbuf.Pool {
	t.Helper()
	p, err := mbuf.NewPool(c)
	nettest.NeedLinux(t, err)
	t.Cleanup(func() {
		if n := p.InUseCount(); n != 0 {
			t.Errorf("%d mbufs still in use", n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// packetOf is a packet of that data, which the pool's mbufs may be too small for.
func packetOf(t *testing.T, pool *mbuf.Pool, data []byte) *mbuf.Mbuf {
	t.Helper()
	m := pool.Alloc()
	if m == nil {
		t.Fatal("the pool is exhausted")
	}
	if err := m.CopyIn(data, pool); err != nil {
		t.Fatal(err)
	}
	return m
}

// numbered is n bytes that tell where they are from.
func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// TestPcap: what is written is read again, cut to the snapshot length, out of one mbuf or many.
func TestPcap(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 64, DataRoom: 256})
	data := numbered(2000)
	for _, snapLen := range []int{maxSnapLen, 2000, 1999, 300, 256, 1} {
		var b bytes.Buffer
		w, err := newPcap(&b, snapLen, pcapEthernet)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{60, 256, 257, 2000} {
			m := packetOf(t, pool, data[:n])
			if err := w.packet(1700000000_123456789+int64(n), n+7, m); err != nil {
				t.Fatal(err)
			}
			m.Free()
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		got, packets := readPcap(t, b.Bytes())
		if got != snapLen || len(packets) != 4 {
			t.Fatalf("snapshot length %d, %d packets; want %d and 4", got, len(packets), snapLen)
		}
		for i, n := range []int{60, 256, 257, 2000} {
			p := packets[i]
			if p.at != 1700000000_123456789+int64(n) || p.length != n+7 || !bytes.Equal(p.data, data[:min(n, snapLen)]) {
				t.Errorf("snapshot length %d: packet of %d bytes is %d of %d bytes at %d", snapLen, n, len(p.data), p.length, p.at)
			}
		}
	}
}

// TestPcapErrors: a writer that fails is no longer written to in silence.
func TestPcapErrors(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 8, DataRoom: 2048})
	r, pipe := io.Pipe()
	r.Close()
	w, err := newPcap(pipe, maxSnapLen, pcapEthernet)
	m := packetOf(t, pool, numbered(1500))
	defer m.Free()
	for range 100 { // more than is held back
		if err == nil {
			err = w.packet(0, 1500, m)
		}
	}
	if err != io.ErrClosedPipe {
		t.Errorf("error %v", err)
	}
}

// TestPcapTcpdump: libpcap takes the file for what it is.
func TestPcapTcpdump(t *testing.T) {
	tcpdump := nettest.NeedProgram(t, "tcpdump")
	pool := newPool(t, mbuf.Config{Count: 8, DataRoom: 64})
	file, err := os.Create(filepath.Join(t.TempDir(), "a.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := newPcap(file, 54, pcapEthernet)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, numbered(86)...) // an experimental EtherType
	m := packetOf(t, pool, frame)
	err = w.packet(1700000000_000000042, len(frame), m)
	m.Free()
	for _, e := range []error{err, w.Flush(), file.Close()} {
		if e != nil {
			t.Fatal(e)
		}
	}
	out, err := exec.CommandContext(t.Context(), tcpdump, "-e", "-n", "-tt", "--nano", "-r", file.Name()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"EN10MB (Ethernet)", "snapshot length 54", "1700000000.000000042 02:00:00:00:00:02 > 02:00:00:00:00:01", "0x88b5", "length 100"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("tcpdump does not say %q: %s", want, out)
		}
	}
}
