// SPDX-License-Identifier: BSD-3-Clause

// Package netstack connects gVisor's network stack (gvisor.dev/gvisor/pkg/tcpip) to a TAP or TUN interface through rtap:
// its [Endpoint] is a stack.LinkEndpoint and a stack.GSOEndpoint.
//
//	ep, err := netstack.New(netstack.Config{Port: rtap.Config{Name: "tap0"}})
//	if err != nil {
//		return err
//	}
//	if err := s.CreateNIC(1, ep); err != nil { // s is a *stack.Stack; ep is closed with it
//		return errors.New(err.String())
//	}
//
// That is the best configuration that the kernel gives: TCP frames of up to 64 KB in both directions, which
// neither side cuts; checksums that neither side computes where the other has not left this machine; frames that the kernel
// copies into gVisor's own buffers, and out of them; batches; goroutines that sleep when nothing comes.
//
// # What is copied
//
// On receiving, the kernel writes large frames into a view of gVisor's (pkg/buffer), which is handed to the stack as it is;
// the headers, and frames below some KB, are copied, because a view is 64 KB. A view cannot wrap memory of another
// kind (its chunk is private to gVisor and has no release hook), so it is the driver that is lent views. Over a
// Device that the program has set up itself the frames are copied once, into pooled views.
//
// On sending, headers and small pieces are copied and the kernel reads the rest from where it lies.
//
// # What gVisor does not have
//
// Its stack has no segmentation of UDP in either direction, so USO has no use here. It forwards neither large frames nor
// incomplete checksums: see Config.Router. It knows one state of checksums for a whole interface, not for each packet: so
// the endpoint verifies the TCP and UDP checksums for which the kernel does not vouch, and drops
// packets that are wrong. Of IP fragments nobody verifies them (with Config.Router, netstack does).
//
// Linux only, as the driver is; package rtap's documentation has the versions. On other systems
// the package is empty.
package netstack
