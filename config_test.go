// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestConfigErrors: what is wrong is found before anything is made, and the
// error names the field, the value and what would be right.
func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		cfg         Config
		field, want string
	}{
		{Config{Name: "sixteen-bytes-xx"}, "Name", "at most 15 bytes, it has 16"},
		{Config{Name: "."}, "Name", "interface name"},
		{Config{Name: ".."}, "Name", "interface name"},
		{Config{Name: "a/b"}, "Name", "without slash"},
		{Config{Name: "a:b"}, "Name", "colon"},
		{Config{Name: "a b"}, "Name", "space"},
		{Config{Name: "a\x00b"}, "Name", "NUL"},
		{Config{Name: "tap%s"}, "Name", "%d"},
		{Config{Name: "tap%"}, "Name", "%d"},
		{Config{Name: "t%dp%d"}, "Name", "at most one %"},
		{Config{MTU: 67}, "MTU", "68 to 65521"},
		{Config{MTU: 65522}, "MTU", "68 to 65521"},
		{Config{MTU: -1}, "MTU", "68 to 65521"},
		{Config{MAC: net.HardwareAddr{2, 0, 0, 0, 1}}, "MAC", "six bytes"},
		{Config{MAC: net.HardwareAddr{}}, "MAC", "six bytes"},
		{Config{MAC: net.HardwareAddr{3, 0, 0, 0, 0, 1}}, "MAC", "unicast"},
		{Config{MAC: make(net.HardwareAddr, 6)}, "MAC", "not zero"},
		{Config{Mode: "l3"}, "Mode", "tap or tun"},
		{Config{Mode: ModeTUN, MTU: 65536}, "MTU", "68 to 65535"},
		{Config{Mode: ModeTAP, MTU: 65522}, "MTU", "68 to 65521"},
		{Config{Mode: ModeTUN, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, "MAC", "none: a TUN has no MAC address"},
		{Config{TxQueueLen: -1}, "TxQueueLen", "1 to 1048576"},
		{Config{TxQueueLen: 1<<20 + 1}, "TxQueueLen", "1 to 1048576"},
		{Config{Engine: "dpdk"}, "Engine", "auto, uring or syscall"},
		{Config{Queues: -1}, "Queues", "1 to 128"},
		{Config{Queues: 129}, "Queues", "1 to 128"},
		{Config{RxRing: -1}, "RxRing", "1 to 4096"},
		{Config{RxRing: MaxRingSize + 1}, "RxRing", "1 to 4096"},
		{Config{TxRing: MaxRingSize + 1}, "TxRing", "1 to 4096"},
	} {
		d, err := Open(c.cfg)
		if err == nil {
			d.Close()
		}
		checkConfigError(t, fmt.Sprintf("%+v", c.cfg), err, "Config."+c.field, c.want)
	}
}

func checkConfigError(t *testing.T, what string, err error, field, want string) {
	t.Helper()
	var ce *ConfigError
	switch {
	case !errors.As(err, &ce):
		t.Errorf("%s: error is %v, want a ConfigError", what, err)
	case ce.Field != field:
		t.Errorf("%s: error names the field %s, want %s", what, ce.Field, field)
	case !strings.Contains(ce.Want, want):
		t.Errorf("%s: error wants %q, should say %q", what, ce.Want, want)
	case !strings.Contains(err.Error(), fmt.Sprintf("%s is %v: want ", field, ce.Value)):
		t.Errorf("%s: error does not say field and value: %v", what, err)
	}
}

// TestConfigLimits: the ends of every range are right.
func TestConfigLimits(t *testing.T) {
	for _, c := range []Config{
		{},
		{Name: "fifteen-bytes-x"},
		{Name: "a%db"},
		{MTU: MinMTU}, {MTU: MaxMTU},
		{Mode: ModeTAP}, {Mode: ModeTUN, MTU: MinMTU}, {Mode: ModeTUN, MTU: MaxTunMTU},
		{MAC: net.HardwareAddr{0, 0, 0, 0, 0, 1}},
		{TxQueueLen: 1}, {TxQueueLen: 1 << 20},
		{Queues: 1}, {Queues: MaxQueues},
		{RxRing: 1, TxRing: 1}, {RxRing: MaxRingSize, TxRing: MaxRingSize},
		{Engine: EngineAuto}, {Engine: EngineUring}, {Engine: EngineSyscall},
	} {
		if _, err := c.withDefaults(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestPortConfigErrors: as TestConfigErrors, unequal queue counts among them.
func TestPortConfigErrors(t *testing.T) {
	for _, c := range []struct {
		rx, tx      int
		field, want string
	}{
		{0, 0, "RxQueues", "1 to 128"},
		{129, 129, "RxQueues", "1 to 128"},
		{1, 0, "TxQueues", "1 to 128"},
		{128, 129, "TxQueues", "1 to 128"},
		{2, 1, "TxQueues", "2, as many as RxQueues"},
		{1, 2, "TxQueues", "1, as many as RxQueues"},
	} {
		cfg := PortConfig{RxQueues: c.rx, TxQueues: c.tx}
		checkConfigError(t, fmt.Sprintf("%+v", cfg), cfg.check(), "PortConfig."+c.field, c.want)
	}
	for _, n := range []int{1, MaxQueues} {
		if err := (PortConfig{RxQueues: n, TxQueues: n}).check(); err != nil {
			t.Errorf("%d queue pairs: %v", n, err)
		}
	}
}
