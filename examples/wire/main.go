// SPDX-License-Identifier: BSD-3-Clause

// Command wire connects tap0 and tap1: what the kernel sends into one comes out of
// the other. TCP crosses it in frames of up to 64 KB, which the kernel never cuts.
// It ends when one of them is deleted: ip link del tap0.
package main

import (
	"log"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

func main() {
	var ports [2]*rtap.Device
	for i, name := range []string{"tap0", "tap1"} {
		dev, err := rtap.Start(rtap.Config{
			Name:       name,
			RxOffloads: rtap.RxOffloadChecksum | rtap.RxOffloadTCPLRO,
			TxOffloads: rtap.TxOffloadTCPCksum | rtap.TxOffloadUDPCksum | rtap.TxOffloadTCPTSO,
		})
		if err != nil {
			log.Fatal(err)
		}
		defer dev.Close()
		ports[i] = dev
	}
	bufs := make([]*mbuf.Mbuf, 64)
	for ports[0].Err() == nil && ports[1].Err() == nil {
		pass(ports[0].RxQueue(0), ports[1].TxQueue(0), bufs)
		pass(ports[1].RxQueue(0), ports[0].TxQueue(0), bufs)
	}
}

func pass(rx *rtap.RxQueue, tx *rtap.TxQueue, bufs []*mbuf.Mbuf) {
	n := rx.Burst(bufs)
	mbuf.PassThrough(bufs[:n]) // what was received large goes out to be cut, by whoever must
	sent := tx.Burst(bufs[:n])
	mbuf.FreeBulk(bufs[sent:n])
}
