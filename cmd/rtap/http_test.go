// SPDX-License-Identifier: BSD-3-Clause

package main

import "testing"

func TestHTTPAddr(t *testing.T) {
	for in, want := range map[string]string{
		"9100": "127.0.0.1:9100", ":9100": "127.0.0.1:9100", "0": "127.0.0.1:0", "localhost:80": "127.0.0.1:80", "[::1]:0": "[::1]:0",
		"0.0.0.0:9100": "0.0.0.0:9100", "[::]:9100": "[::]:9100", "192.0.2.1:65535": "192.0.2.1:65535", "[fe80::1%lo]:1": "[fe80::1%lo]:1",
	} {
		var a httpAddr
		if err := a.Set(in); err != nil || string(a) != want {
			t.Errorf("--http=%s is %q, %v; want %q", in, a, err, want)
		}
	}
	for _, in := range []string{"", ":", "http", "65536", "-1", ":-1", "0.0.0.0", "::1", "[::1]", "host.example:80", "1.2.3:80", "*:80",
		"http://127.0.0.1:80", "127.0.0.1:80/", "127.0.0.1:http", "[127.0.0.1:80", " 9100", "+80"} {
		var a httpAddr
		if err := a.Set(in); err == nil || a != "" {
			t.Errorf("--http=%s is taken for %q, %v", in, a, err)
		}
	}
}
