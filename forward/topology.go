// SPDX-License-Identifier: BSD-3-Clause

package forward

import "fmt"

// Topology says which port sends what a port received (testpmd --port-topology).
type Topology uint8

// The topologies, testpmd's.
const (
	// Paired joins ports 0 and 1, 2 and 3 and so on; an odd last port and a single one loop to themselves.
	Paired Topology = iota
	// Chained sends what port i received on port i+1, the last one's on port 0.
	Chained
	// Loop sends everything on the port that received it.
	Loop
)

// String returns testpmd's name of the topology.
func (t Topology) String() string {
	switch t {
	case Paired:
		return "paired"
	case Chained:
		return "chained"
	case Loop:
		return "loop"
	}
	return fmt.Sprintf("topology(%d)", uint8(t))
}

// TxPort returns the port that sends what port rx of ports received.
func (t Topology) TxPort(rx, ports int) int {
	switch t {
	case Chained:
		return (rx + 1) % ports
	case Loop:
		return rx
	}
	if peer := rx ^ 1; peer < ports {
		return peer
	}
	return rx
}

// Route is the way of one stream: queue Queue of port RxPort to queue Queue of port TxPort.
type Route struct {
	RxPort int `json:"rx_port"`
	TxPort int `json:"tx_port"`
	Queue  int `json:"queue"`
}

// String gives the route as testpmd prints it.
func (r Route) String() string {
	return fmt.Sprintf("RX P=%d/Q=%d -> TX P=%d/Q=%d", r.RxPort, r.Queue, r.TxPort, r.Queue)
}

// routes lists the streams' routes, queue by queue as testpmd does (rss_fwd_config_setup): the two directions
// of a pair come together, so that they mostly share a worker. Those of other processes' queues are left out.
func routes(c *Config, ports []*Port) ([]Route, error) {
	if len(ports) == 0 {
		return nil, &ConfigError{"ports", "none", "must be one or more"}
	}
	var rs []Route
	most := 0 // queues of a port
	for rx, p := range ports {
		tx := c.Topology.TxPort(rx, len(ports))
		if len(p.rx) == 0 || len(p.rx) != len(ports[tx].tx) {
			return nil, fmt.Errorf("forward: port %d has %d Rx queues and port %d, which sends for it, %d Tx queues: must be equal, and one or more",
				rx, len(p.rx), tx, len(ports[tx].tx))
		}
		if len(p.rx)%c.NumProcs != 0 {
			return nil, fmt.Errorf("forward: port %d has %d queues, which %d processes cannot share: must be a multiple of %d",
				rx, len(p.rx), c.NumProcs, c.NumProcs)
		}
		most = max(most, len(p.rx))
	}
	for q := range most {
		for rx, p := range ports {
			if c.mine(q, len(p.rx)) {
				rs = append(rs, Route{rx, c.Topology.TxPort(rx, len(ports)), q})
			}
		}
	}
	return rs, nil
}

// mine reports whether queue q of a port with n of them is this process's.
func (c *Config) mine(q, n int) bool {
	share := n / c.NumProcs
	return q < n && q/share == c.ProcID
}

// spread cuts n streams into runs for at most cores workers. As in testpmd the runs differ by one at most and
// the longer ones come last. Every stream is in one run, so a queue has one goroutine.
func spread(n, cores int) []int {
	cores = min(cores, n)
	runs := make([]int, cores)
	for i := range runs {
		runs[i] = n / cores
		if i >= cores-n%cores {
			runs[i]++
		}
	}
	return runs
}
