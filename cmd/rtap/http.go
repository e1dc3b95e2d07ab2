// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap/metrics"
)

// httpAddr is the flag --http: where to serve, or "" for nowhere.
type httpAddr string

func (a *httpAddr) String() string { return string(*a) }

// Set takes a port, with or without a colon, which means loopback, or an address and a port.
func (a *httpAddr) Set(v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil && !strings.Contains(v, ":") {
		host, port, err = "", v, nil
	}
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil {
		return fmt.Errorf("want a port, 0 to 65535, or an address and a port, such as 9100, 127.0.0.1:9100 or [::1]:9100")
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("%q is no IP address: want one, such as 127.0.0.1, or 0.0.0.0 for every address of this machine", host)
	}
	*a = httpAddr(netip.AddrPortFrom(addr, uint16(n)).String())
	return nil
}

// serveHTTP serves the page and the metrics at addr, if there is one, until the function that it returns is called.
func (s *session) serveHTTP(addr httpAddr, d *display) (stop func() error, err error) {
	if addr == "" {
		return func() error { return nil }, nil
	}
	srv, err := metrics.Listen(string(addr), metrics.Config{Source: s.view, Version: version()})
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	d.printf("http://%s/ shows the ports live; Prometheus reads /metrics there, and /healthz says how they are", srv.Addr())
	return srv.Close, nil
}

// view is what is served. Ports and pools are the same for as long as the session lasts.
func (s *session) view() metrics.View {
	return metrics.View{Ports: s.telemetryPorts(), Pools: s.pools()}
}
