// SPDX-License-Identifier: BSD-3-Clause

// Command rtap runs packets through Linux TAP interfaces with package rtap: it
// forwards between ports as DPDK's testpmd does, says what this machine allows,
// measures the driver's engines against each other, and shows all of it at work.
//
//	rtap run     forward packets between ports
//	rtap capture packets of a running rtap's port, to a pcap file
//	rtap ports   the ports of a running rtap; likewise stats, xstats, link
//	rtap info    what this kernel and these privileges allow
//	rtap bench   the engines side by side
//	rtap demo    real traffic through ports in namespaces of their own
//
// Start reading at the table of verbs in main.go; each verb is a file.
package main
