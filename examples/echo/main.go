// SPDX-License-Identifier: BSD-3-Clause

// Echo sends every packet that the kernel hands to tap0 back to it.
package main

import (
	"log"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

func main() {
	dev, err := rtap.Start(rtap.Config{Name: "tap0"}) // see it: ip link show tap0
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	rx, tx := dev.RxQueue(0), dev.TxQueue(0)
	bufs := make([]*mbuf.Mbuf, 64)
	for dev.Err() == nil { // until somebody says: ip link del tap0
		n := rx.Burst(bufs)         // up to 64 packets in one system call; they are ours now
		sent := tx.Burst(bufs[:n])  // the first sent of them are the driver's again
		mbuf.FreeBulk(bufs[sent:n]) // the rest still ours
	}
	log.Print(dev.Stats())
}
