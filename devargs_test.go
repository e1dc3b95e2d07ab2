// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
)

func TestParseDevargs(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	for _, c := range []struct {
		in   string
		name string
		want Config
	}{
		{"net_rtap0", "net_rtap0", Config{}},
		{"net_rtap", "net_rtap", Config{}},
		{"eth_rtap1,iface=foo0", "eth_rtap1", Config{Name: "foo0"}},
		{"net_rtap0,iface=foo0,persist", "net_rtap0", Config{Name: "foo0", Persist: true}},
		{"net_rtap0,persist=0,no-carrier=1", "net_rtap0", Config{NoCarrier: true}},
		{"net_rtap_left,iface=tap%d,mtu=68", "net_rtap_left", Config{Name: "tap%d", MTU: 68}},
		{"net_rtap0,mtu=65521,mac=02:00:00:00:00:07,txqlen=1048576,netns=/run/netns/blue,engine=syscall,no-carrier,queues=128",
			"net_rtap0", Config{MTU: 65521, MAC: mac, TxQueueLen: 1048576, NetNS: "/run/netns/blue",
				Engine: EngineSyscall, NoCarrier: true, Queues: 128}},
		{"net_rtap0,mtu=65535,mode=tun", "net_rtap0", Config{Mode: ModeTUN, MTU: 65535}},
		{"net_rtap0,mode=tap", "net_rtap0", Config{Mode: ModeTAP}},
		{"net_rtap0,netns=/a=b", "net_rtap0", Config{NetNS: "/a=b"}},
	} {
		name, got, err := ParseDevargs(c.in)
		if err != nil || name != c.name || !reflect.DeepEqual(got, c.want) {
			t.Errorf("ParseDevargs(%q) = %q, %+v, %v; want %q, %+v", c.in, name, got, err, c.name, c.want)
		}
	}
}

func TestParseDevargsErrors(t *testing.T) {
	for _, c := range []struct{ in, field, text string }{
		{"", "name", "net_rtap0"},
		{"net_tap0", "name", `"net_tap0"`},
		{"net_rtap 0", "name", "net_rtap0"},
		{"net_rtap0,iface=a234567890123456", "iface", "at most 15 bytes, it has 16"},
		{"net_rtap0,iface=", "iface", "iface=VALUE"},
		{"net_rtap0,iface", "iface", "iface=VALUE"},
		{"net_rtap0,iface=a/b", "iface", `"a/b"`},
		{"net_rtap0,mtu=67", "mtu", `mtu is "67": want 68 to 65521`},
		{"net_rtap0,mtu=65522", "mtu", `mtu is "65522": want 68 to 65521`},
		{"net_rtap0,mtu=65536,mode=tun", "mtu", `mtu is "65536": want 68 to 65535`},
		{"net_rtap0,mtu=0", "mtu", `mtu is "0": want 68`},
		{"net_rtap0,mode=l3", "mode", `mode is "l3": want tap or tun`},
		{"net_rtap0,mode", "mode", "mode=VALUE"},
		{"net_rtap0,mac=02:00:00:00:00:01,mode=tun", "mac", `mac is "02:00:00:00:00:01": want none: a TUN has no MAC address`},
		{"net_rtap0,mtu=9k", "mtu", `"9k": want a number`},
		{"net_rtap0,mac=02:00", "mac", "six bytes"},
		{"net_rtap0,mac=01:00:00:00:00:01", "mac", "unicast"},
		{"net_rtap0,mac=00:00:00:00:00:00", "mac", "not zero"},
		{"net_rtap0,mac=02:00:00:00:00:00:00:01", "mac", "six bytes"},
		{"net_rtap0,txqlen=0", "txqlen", "1 to 1048576"},
		{"net_rtap0,engine=epoll", "engine", "auto, uring or syscall"},
		{"net_rtap0,persist=yes", "persist", "0 or 1"},
		{"net_rtap0,queues=129", "queues", "1 to 128"},
		{"net_rtap0,persist,persist", "persist", "twice"},
		{"net_rtap0,", "key", "one of iface, persist"},
		{"net_rtap0,remote=eth0", "key", `"remote"`},
	} {
		_, cfg, err := ParseDevargs(c.in)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != c.field || !strings.Contains(err.Error(), c.text) {
			t.Errorf("ParseDevargs(%q): error %v; want one about %s that says %q", c.in, err, c.field, c.text)
		}
		if !reflect.DeepEqual(cfg, Config{}) {
			t.Errorf("ParseDevargs(%q) = %+v beside an error", c.in, cfg)
		}
	}
}

// formatDevargs writes what ParseDevargs reads.
func formatDevargs(name string, c Config) string {
	args := []string{name}
	add := func(is bool, format string, v ...any) {
		if is {
			args = append(args, fmt.Sprintf(format, v...))
		}
	}
	add(c.Name != "", "iface=%s", c.Name)
	add(c.Persist, "persist")
	add(c.Mode != "", "mode=%s", c.Mode)
	add(c.MTU != 0, "mtu=%d", c.MTU)
	add(c.MAC != nil, "mac=%s", c.MAC)
	add(c.TxQueueLen != 0, "txqlen=%d", c.TxQueueLen)
	add(c.NetNS != "", "netns=%s", c.NetNS)
	add(c.Engine != "", "engine=%s", c.Engine)
	add(c.NoCarrier, "no-carrier")
	add(c.Queues != 0, "queues=%d", c.Queues)
	return strings.Join(args, ",")
}

// FuzzParseDevargs: whatever is accepted makes a configuration that Open takes,
// and means the same when it is written out again.
func FuzzParseDevargs(f *testing.F) {
	f.Add("net_rtap0,iface=foo0,persist")
	f.Add("eth_rtap9,mtu=1500,mac=02:00:00:00:00:01,txqlen=10,netns=/x,engine=auto,no-carrier=0,queues=4")
	f.Add("net_rtap0,mtu=65535,mode=tun")
	f.Add("net_rtap0,=,,iface==")
	f.Fuzz(func(t *testing.T, in string) {
		name, cfg, err := ParseDevargs(in)
		if err != nil {
			var ce *ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("%q: error %v is no *ConfigError", in, err)
			}
			return
		}
		if _, err := cfg.withDefaults(); err != nil {
			t.Fatalf("%q was accepted, but Open would say: %v", in, err)
		}
		out := formatDevargs(name, cfg)
		name2, cfg2, err := ParseDevargs(out)
		if err != nil || name2 != name || !reflect.DeepEqual(cfg2, cfg) {
			t.Fatalf("%q is written %q, which reads as %q, %+v, %v; want %q, %+v", in, out, name2, cfg2, err, name, cfg)
		}
	})
}
