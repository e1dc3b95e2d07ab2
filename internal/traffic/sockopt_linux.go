// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// control runs f on a socket's descriptor.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(ctlErr, err)
}

// prepare sets the options of the sending socket: tcp(7), socket(7).
func (cfg *TCPConfig) prepare(_, _ string, c syscall.RawConn) error {
	return control(c, func(fd int) error {
		if cfg.Congestion != "" {
			if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, cfg.Congestion); err != nil {
				return fmt.Errorf("congestion control %s: %w", cfg.Congestion, err)
			}
		}
		if cfg.MSS != 0 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, cfg.MSS); err != nil {
				return fmt.Errorf("segment size %d: %w", cfg.MSS, err)
			}
		}
		if cfg.PacingBytes != 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, cfg.PacingBytes); err != nil {
				return fmt.Errorf("pacing rate %d: %w", cfg.PacingBytes, err)
			}
		}
		return nil
	})
}

// optECN is TCPI_OPT_ECN in uapi linux/tcp.h.
const optECN = 8

func senderInfo(conn *net.TCPConn) (TCPInfo, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return TCPInfo{}, err
	}
	var ti *unix.TCPInfo
	err = control(raw, func(fd int) (err error) {
		ti, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	if err != nil {
		return TCPInfo{}, fmt.Errorf("tcp_info: %w", err)
	}
	return TCPInfo{
		MSS: int(ti.Snd_mss), PathMTU: int(ti.Pmtu), Retransmits: ti.Total_retrans, BytesRetrans: ti.Bytes_retrans,
		Delivered: ti.Delivered, DeliveredCE: ti.Delivered_ce, DSACKs: ti.Dsack_dups, ECN: ti.Options&optECN != 0,
	}, nil
}

// prepareClient has what is sent in one call cut into datagrams.
func (cfg *UDPConfig) prepareClient(_, _ string, c syscall.RawConn) error {
	if cfg.Segments == 1 {
		return nil
	}
	return control(c, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, cfg.SizeBytes); err != nil {
			return fmt.Errorf("UDP_SEGMENT %d: %w", cfg.SizeBytes, err)
		}
		return nil
	})
}

func (cfg *UDPConfig) prepareServer(_, _ string, c syscall.RawConn) error {
	if !cfg.GRO {
		return nil
	}
	return control(c, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return fmt.Errorf("UDP_GRO: %w", err)
		}
		return nil
	})
}

// mergedSize is the length of each datagram in what UDP_GRO received at once, or 0.
func mergedSize(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
