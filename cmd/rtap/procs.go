// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"slices"
	"strings"

	"github.com/rtap-project/rtap"
)

// Values of --proc-type, EAL's.
const (
	procPrimary   = "primary"
	procSecondary = "secondary"
	procAuto      = "auto"
)

// procOptions are the flags of rtap run for several processes on the same ports.
type procOptions struct {
	kind    string
	num, id int
}

func (o *procOptions) register(f *flags) {
	f.StringVar(&o.kind, "proc-type", procPrimary, "TYPE: primary opens ports; secondary works on those of the primary of this --file-prefix,\nwithout --num-procs it only shows them; auto is secondary if there is a primary")
	f.IntVar(&o.num, "num-procs", 1, "N: processes that share the queues of every port, see below")
	f.IntVar(&o.id, "proc-id", 0, "I: which of them this one is, from 0: it polls queues I*rxq/N to (I+1)*rxq/N-1")
}

func (o *procOptions) check(f *flags) error {
	if kinds := []string{procPrimary, procSecondary, procAuto}; !slices.Contains(kinds, o.kind) {
		return f.usage("--proc-type is %q: want %s", o.kind, strings.Join(kinds, ", "))
	}
	if err := f.inRange("num-procs", o.num, 1, 1+rtap.MaxSecondaries); err != nil {
		return err
	}
	if o.id < 0 || o.id >= o.num {
		return f.usage("--proc-id is %d: want 0 to %d, with --num-procs=%d", o.id, o.num-1, o.num)
	}
	return nil
}

// portFlags say how ports are, which is the primary's to say, and forwardFlags what to do with their packets.
var (
	portFlags = []string{"vdev", "rxd", "txd", "mbuf-size", "total-num-mbufs", "huge", "offloads", "enable-rx-cksum", "enable-lro",
		"max-lro-pkt-size", "enable-scatter", "rx-offloads", "tx-offloads"}
	forwardFlags = []string{"forward-mode", "port-topology", "eth-peer", "burst", "nb-cores", "txpkts", "rx-mode", "tso-segsz", "engine"}
)

// checkSecondary refuses what makes no sense in a secondary.
func (o *procOptions) checkSecondary(f *flags) error {
	if i := slices.IndexFunc(portFlags, f.given); i >= 0 {
		return f.usage("--%s is for the primary: a secondary takes the ports as they are", portFlags[i])
	}
	if i := slices.IndexFunc(forwardFlags, f.given); i >= 0 && !o.shares(f) {
		return f.usage("--%s is for a secondary that forwards: give it --num-procs and --proc-id, too", forwardFlags[i])
	}
	return nil
}

// shares reports whether the process polls a share of the queues. A secondary that does not only looks on.
func (o *procOptions) shares(f *flags) bool { return f.given("num-procs") }

const procsHelp = `
Several processes on the same ports. A primary, which opens the ports, and secondaries,
which attach to them, share the queues: each has --num-procs=N and a --proc-id=I of its
own, polls queues I*rxq/N to (I+1)*rxq/N-1 of every port, and may do something else with
the packets. The kernel spreads flows over the queues, whoever polls them: packets for
the queues of a process that is not there wait in the kernel, up to txqlen, until one
with that --proc-id comes. A primary without --num-procs polls every queue that no
secondary has, also what one that ended had; but its pool is for itself alone, unless
--total-num-mbufs says more. A secondary has the ports as they are:
--vdev and what else describes ports and memory is for the primary, whose statistics
and telemetry cover all queues. It prints what it has moved itself, and ends, with exit
code 1, when the primary ends. All are the same build of rtap, and run as one user.
`
