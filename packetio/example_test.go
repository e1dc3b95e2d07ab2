// SPDX-License-Identifier: BSD-3-Clause

package packetio_test

import (
	"errors"
	"log"
	"net"
	"os"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/packetio"
)

func handle(packet []byte) []byte { return packet }

// A program that reads and writes a packet at a time, as with songgao/water: only the lines that open the interface are other ones.
func ExampleConn_Read() {
	run := func() error {
		ifce, err := packetio.Open(rtap.Config{Name: "tun0", Mode: rtap.ModeTUN})
		if err != nil {
			return err
		}
		defer ifce.Close()
		buf := make([]byte, 2048)
		for {
			n, err := ifce.Read(buf)
			if err != nil {
				return err
			}
			if _, err := ifce.Write(handle(buf[:n])); err != nil {
				return err
			}
		}
	}
	log.Print(run())
}

// The same with many packets in one call.
func ExampleConn_ReadPackets() {
	run := func(ifce *packetio.Conn) error {
		bufs := packetio.Buffers(64, 2048)
		out := make([][]byte, 0, 64)
		for {
			n, err := ifce.ReadPackets(bufs) // waits for one, and takes what is there
			if err != nil {
				return err
			}
			out = out[:0]
			for _, packet := range bufs[:n] {
				out = append(out, handle(packet))
			}
			if _, err := ifce.WritePackets(out); err != nil {
				return err
			}
		}
	}
	ifce, err := packetio.Open(rtap.Config{Mode: rtap.ModeTUN})
	if err != nil {
		log.Fatal(err)
	}
	defer ifce.Close()
	log.Print(run(ifce))
}

// Several queues, each with a goroutine of its own; whoever closes one of them ends all.
func ExampleOpenQueues() {
	conns, err := packetio.OpenQueues(rtap.Config{Name: "tap0", Queues: 4})
	if err != nil {
		log.Fatal(err)
	}
	for _, conn := range conns[1:] {
		go serve(conn)
	}
	serve(conns[0])
}

func serve(conn *packetio.Conn) {
	bufs := packetio.Buffers(64, 2048)
	for {
		n, err := conn.ReadPackets(bufs)
		switch {
		case errors.Is(err, os.ErrClosed): // conn.Close
			return
		case errors.Is(err, rtap.ErrGone): // ip link del
			conn.Close()
			return
		case err != nil:
			log.Print(err)
			continue
		}
		_, _ = conn.WritePackets(bufs[:n])
	}
}

// What else there is to set, and to ask: the Config, and the Device.
func ExampleOpen() {
	conn, err := packetio.Open(rtap.Config{
		Name: "tap%d", // the first that is free
		MTU:  9000,
		MAC:  net.HardwareAddr{2, 0, 0, 0, 0, 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	log.Print(conn.Name(), " is up")
	log.Print(conn.Device().Stats())
}
