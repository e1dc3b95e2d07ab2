// SPDX-License-Identifier: BSD-3-Clause

package traffic

import "testing"

func TestParseCounters(t *testing.T) {
	const text = `TcpExt: SyncookiesSent RetransSegs
TcpExt: 1 100
IpExt: InNoRoutes InCEPkts InTruncatedPkts
IpExt: 2 5 -1
Tcp: MaxConn RetransSegs InErrs InCsumErrors
Tcp: -1 3 4 6
Ip6InCEPkts                     	7
Udp6InCsumErrors                	8
Udp: InCsumErrors
Udp:
Tcp: RetransSegs
`
	var got Counters
	parseCounters(text, counterNames(&got))
	want := Counters{TCPRetransSegs: 3, TCPInErrs: 4, TCPInCsumErrors: 6, InCEPkts: 12, UDPInCsumErrors: 8}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	before := Counters{TCPRetransSegs: 1, InCEPkts: 2}
	if d := got.Since(before); d.TCPRetransSegs != 2 || d.InCEPkts != 10 || d.UDPInCsumErrors != 8 {
		t.Errorf("since: %+v", d)
	}
}
