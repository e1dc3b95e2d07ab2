// SPDX-License-Identifier: BSD-3-Clause

package rtap

// DescLimits bound a queue's ring size (struct rte_eth_desc_lim).
type DescLimits struct {
	Max    int `json:"nb_max"`
	Min    int `json:"nb_min"`
	Align  int `json:"nb_align"`
	SegMax int `json:"nb_seg_max"` // mbufs of one packet
}

// PortDefaults is what an application does well to choose
// (struct rte_eth_dev_portconf).
type PortDefaults struct {
	BurstSize int `json:"burst_size"`
	RingSize  int `json:"ring_size"`
	Queues    int `json:"nb_queues"`
}

// Info is what a port can do and how it is set up (struct rte_eth_dev_info).
type Info struct {
	Driver  string `json:"driver_name"` // "net_rtap"
	Mode    Mode   `json:"mode"`        // what packets begin with
	Name    string `json:"interface"`   // as last seen; Link asks the kernel
	IfIndex int    `json:"if_index"`    // likewise

	Engine       Engine `json:"engine"`        // uring or syscall
	EngineReason string `json:"engine_reason"` // why, and what it had to do without

	MinMTU       int `json:"min_mtu"`
	MaxMTU       int `json:"max_mtu"`
	MinRxBufSize int `json:"min_rx_bufsize"` // least DataRoom of an Rx queue's memory, bytes
	MaxRxPktLen  int `json:"max_rx_pktlen"`  // longest frame, bytes

	MaxRxQueues int  `json:"max_rx_queues"`
	MaxTxQueues int  `json:"max_tx_queues"`
	MaxMACAddrs int  `json:"max_mac_addrs"`
	RxQueues    int  `json:"nb_rx_queues"` // configured
	TxQueues    int  `json:"nb_tx_queues"`
	Started     bool `json:"started"`

	// What this kernel gives (see RxOffloadNames), and what is on.
	RxOffloads        uint64 `json:"rx_offload_capa"`
	TxOffloads        uint64 `json:"tx_offload_capa"`
	EnabledRxOffloads uint64 `json:"rx_offloads"`
	EnabledTxOffloads uint64 `json:"tx_offloads"`
	// MaxLROPktSize is the longest LRO frame in bytes: what the kernel was told while
	// LRO is on and the port has been started, else the most there can be.
	MaxLROPktSize int `json:"max_lro_pkt_size"`

	RxDesc     DescLimits   `json:"rx_desc_lim"`
	TxDesc     DescLimits   `json:"tx_desc_lim"`
	RxDefaults PortDefaults `json:"default_rxportconf"`
	TxDefaults PortDefaults `json:"default_txportconf"`
}

// minDataRoom keeps the mbufs of one frame, up to MaxMTU long, below what readv(2)
// takes: 1024 (UIO_MAXIOV).
const minDataRoom = 128

// Info describes the port. It may be called at any time; of a closed port the
// engine is empty. In a secondary that has leased queues, it is that of these.
func (d *Device) Info() Info {
	if d.far != nil {
		return d.farInfo()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l2 := d.layer2()
	desc := DescLimits{Max: MaxRingSize, Min: 1, Align: 1, SegMax: maxSegs}
	defaults := PortDefaults{BurstSize: DefaultBurst, RingSize: DefaultRingSize, Queues: 1}
	info := Info{
		Driver: "net_rtap", Mode: d.mode, Name: d.name, IfIndex: d.index,
		MinMTU: MinMTU, MaxMTU: l2.maxMTU(), MinRxBufSize: minDataRoom, MaxRxPktLen: l2.maxMTU() + l2.overhead(),
		MaxRxQueues: MaxQueues, MaxTxQueues: MaxQueues, MaxMACAddrs: min(1, l2.header),
		RxQueues: len(d.pairs), TxQueues: len(d.pairs), Started: d.state == stateStarted,
		RxOffloads: d.capa.rx, TxOffloads: d.capa.tx,
		EnabledRxOffloads: d.conf.RxOffloads, EnabledTxOffloads: d.conf.TxOffloads,
		MaxLROPktSize: l2.maxLRO(),
		RxDesc:        desc, TxDesc: desc, RxDefaults: defaults, TxDefaults: defaults,
	}
	if d.conf.lro() && d.gsoMax != 0 {
		info.MaxLROPktSize = d.gsoMax - 1 + l2.tag
	}
	if d.engine != nil {
		info.Engine = Engine(d.engine.Name())
		info.EngineReason = d.engineReason()
	}
	return info
}

// farInfo is the primary's Info with the engine of this process, if it has leased anything. When the primary is gone,
// little is known.
func (d *Device) farInfo() Info {
	info := Info{Driver: "net_rtap"}
	err := d.ask("info", request{}, &info)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		info.Mode, info.Name, info.IfIndex, info.RxQueues, info.TxQueues = d.mode, d.name, d.index, len(d.pairs), len(d.pairs)
	}
	if d.engine != nil {
		info.Engine, info.EngineReason = Engine(d.engine.Name()), d.engineReason()
	}
	return info
}

// Name is the interface's name as last seen; Link asks the kernel.
func (d *Device) Name() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}
