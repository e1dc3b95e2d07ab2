// SPDX-License-Identifier: BSD-3-Clause

// Package forward moves packets between ports the way DPDK's testpmd does: the same modes under the same
// names, the same port topology, the same rule for packets that could not be sent.
//
// It knows a port only as a MAC address and two lists of queues ([Port]), so it works over the queues of
// package rtap and over anything else that hands out and takes bursts of mbufs.
//
//	ports ─ New(Config, ports…) ─ Forwarder
//	                                 └─ Worker  one goroutine, one core
//	                                      └─ Stream  one Rx queue → mode → one Tx queue
//
// Start reading at [New]; the modes are one file each (io.go, mac.go, …) and stand in one table in mode.go.
//
// # The data path
//
// Once [Forwarder.Run] has started, nothing is allocated, locked, logged or returned as an error: what went
// wrong is a counter of the stream ([Stats]). Every packet a stream receives or builds is either taken by
// the Tx queue or freed, so the mbufs of a pool are all accounted for when the workers have stopped.
//
// Modes that change packets do so in place, as in DPDK: they are meant for packets fresh from an Rx queue, whose
// buffers nobody else shares. Freed are mbufs of package mbuf's pools.
//
// # Reference
//
// DPDK, "Testpmd Application User Guide", chapters "Running the Application" (--forward-mode, --txpkts,
// --eth-peer, --port-topology, --nb-cores) and "Testpmd Runtime Functions" (set fwd).
package forward
