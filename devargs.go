// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// devargsDrivers are the driver names that a port's device arguments may begin
// with: the driver's own, and its alias.
var devargsDrivers = []string{"net_rtap", "eth_rtap"}

// devargsKeys says what each key does, in the order of the documentation.
var devargsKeys = []struct {
	key  string
	bare string // the value that the key alone stands for; "" if it needs one
	set  func(c *Config, value string) error
}{
	{"iface", "", func(c *Config, v string) error { c.Name = v; return checkName(v) }},
	{"persist", "1", func(c *Config, v string) (err error) { c.Persist, err = devargsBool(v); return err }},
	{"mode", "", func(c *Config, v string) error { c.Mode = Mode(v); return c.Mode.check() }},
	{"mtu", "", func(c *Config, v string) (err error) { c.MTU, err = devargsMTU(v); return err }},
	{"mac", "", func(c *Config, v string) (err error) { c.MAC, err = devargsMAC(v); return err }},
	{"txqlen", "", func(c *Config, v string) (err error) { c.TxQueueLen, err = devargsInt(v, 1, maxTxQueueLen); return err }},
	{"netns", "", func(c *Config, v string) error { c.NetNS = v; return nil }},
	{"engine", "", func(c *Config, v string) error { c.Engine = Engine(v); return checkEngine(c.Engine) }},
	{"no-carrier", "1", func(c *Config, v string) (err error) { c.NoCarrier, err = devargsBool(v); return err }},
	{"queues", "", func(c *Config, v string) (err error) { c.Queues, err = devargsInt(v, 1, MaxQueues); return err }},
}

// ParseDevargs reads a port's description in DPDK's syntax, as --vdev takes it:
//
//	net_rtap0,iface=foo0,persist,mtu=9000
//
// The name of the port comes first: "net_rtap" or its alias "eth_rtap", and
// whatever tells this port from others. Keys, each at most once, are
//
//	iface=NAME        Config.Name
//	persist[=0|1]     Config.Persist
//	mode=tap|tun      Config.Mode
//	mtu=BYTES         Config.MTU
//	mac=ADDRESS       Config.MAC
//	txqlen=PACKETS    Config.TxQueueLen
//	netns=PATH        Config.NetNS; a path with a comma in it cannot be written
//	engine=NAME       Config.Engine
//	no-carrier[=0|1]  Config.NoCarrier
//	queues=N          Config.Queues
//
// The first two are those of DPDK's C driver. What is not named is left zero,
// that is, at its default. An error wraps a [*ConfigError] whose Field is the
// key.
func ParseDevargs(devargs string) (name string, cfg Config, err error) {
	name, rest, more := strings.Cut(devargs, ",")
	fail := func(err error) (string, Config, error) {
		return "", Config{}, fmt.Errorf("rtap: device arguments %q: %w", devargs, err)
	}
	if !isDevargsName(name) {
		return fail(&ConfigError{"name", fmt.Sprintf("%q", name), "net_rtap and a number, such as net_rtap0"})
	}
	seen := map[string]bool{}
	for more {
		var arg string
		arg, rest, more = strings.Cut(rest, ",")
		key, value, hasValue := strings.Cut(arg, "=")
		if seen[key] {
			return fail(&ConfigError{key, "given twice", "once"})
		}
		seen[key] = true
		if err := cfg.setDevarg(key, value, hasValue); err != nil {
			return fail(err)
		}
	}
	if err := cfg.suitsMode(); err != nil {
		return fail(err)
	}
	return name, cfg, nil
}

// suitsMode checks what depends on the mode, the key of which may come last.
func (c Config) suitsMode() error {
	c.Mode = cmp.Or(c.Mode, ModeTAP)
	err := c.checkMode()
	if ce := (*ConfigError)(nil); errors.As(err, &ce) {
		key := strings.ToLower(strings.TrimPrefix(ce.Field, "Config."))
		return devargsError(key, fmt.Sprint(ce.Value), err)
	}
	return err
}

// isDevargsName reports whether name is one of the driver's and something that
// can stand in messages and files.
func isDevargsName(name string) bool {
	for _, d := range devargsDrivers {
		if rest, ok := strings.CutPrefix(name, d); ok {
			return !strings.ContainsFunc(rest, func(r rune) bool {
				return r <= ' ' || r == '=' || r >= 0x7f
			})
		}
	}
	return false
}

// setDevarg sets what one key says.
func (c *Config) setDevarg(key, value string, hasValue bool) error {
	for _, k := range devargsKeys {
		if k.key != key {
			continue
		}
		if !hasValue {
			value = k.bare
		}
		if value == "" {
			return &ConfigError{key, "empty", key + "=VALUE"}
		}
		return devargsError(key, value, k.set(c, value))
	}
	return &ConfigError{"key", fmt.Sprintf("%q", key), "one of " + devargsKeyNames()}
}

// devargsError makes err one that names the key and the value as it was written.
func devargsError(key, value string, err error) error {
	if err == nil {
		return nil
	}
	want := err.Error()
	if ce := (*ConfigError)(nil); errors.As(err, &ce) {
		want = ce.Want
	}
	return &ConfigError{key, fmt.Sprintf("%q", value), want}
}

func devargsKeyNames() string {
	names := make([]string, len(devargsKeys))
	for i, k := range devargsKeys {
		names[i] = k.key
	}
	return strings.Join(names, ", ")
}

func devargsBool(v string) (bool, error) {
	if v != "0" && v != "1" {
		return false, errors.New("0 or 1")
	}
	return v == "1", nil
}

func devargsInt(v string, lo, hi int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, fmt.Errorf("a number, %d to %d", lo, hi)
	}
	return n, checkRange("", n, lo, hi)
}

// devargsMTU leaves the upper bound to suitsMode.
func devargsMTU(v string) (int, error) {
	n, err := devargsInt(v, MinMTU, MaxMTU)
	if n > MaxMTU {
		return n, nil
	}
	return n, err
}

func devargsMAC(v string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(v)
	if err != nil {
		return nil, errors.New("six bytes in hexadecimal, such as 02:00:00:00:00:01")
	}
	return mac, checkMAC("", mac)
}
