// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// httpIn is a client in a namespace.
func httpIn(t *testing.T, ns *netns.NS) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = errors.Join(ns.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		}))
		return c, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: nettest.Bound(10 * time.Second)}
}

// get is a page's status and text.
func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestRunHTTP: the page, the metrics and the health of a running command, of which one port is lost.
func TestRunHTTP(t *testing.T) {
	ns := nettest.NS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--json", "--forward-mode=icmpecho", "--http=0", "--vdev=net_rtap0,iface=foo0", "--vdev=net_rtap1,iface=foo1,queues=1")
	p.forwarding()
	var base string
	nettest.Eventually(t, 10*time.Second, "the address is printed", func() bool {
		m := regexp.MustCompile(`http://127\.0\.0\.1:[1-9]\d*/`).FindString(p.err.String())
		base = m
		return m != ""
	})
	foo1 := p.up(conn, "foo1")
	c := httpIn(t, ns)
	for path, want := range map[string][]string{
		"":          {"<!doctype html>"},
		"metrics":   {`rtap_port_attached{interface="foo0",port="net_rtap0"} 1`, `rtap_mempool_mbufs{pool="rtap"}`, "rtap_build_info{", "process_cpu_seconds_total"},
		"healthz":   {`"status":"ok"`, "net_rtap1"},
		"api/ports": {`"name":"net_rtap1"`, `"interface":"foo1"`, `"version":"` + version()},
	} {
		code, text := get(t, c, base+path)
		for _, w := range want {
			if code != 200 || !strings.Contains(text, w) {
				t.Errorf("/%s: %d, no %q in %s", path, code, w, text)
			}
		}
	}
	if err := conn.Delete(foo1.Index); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 10*time.Second, "health names the port", func() bool {
		code, text := get(t, c, base+"healthz")
		var h struct {
			Ports []struct{ Port, Status string }
		}
		return code == 503 && json.Unmarshal([]byte(text), &h) == nil && len(h.Ports) == 2 && h.Ports[0].Status == "ok" && h.Ports[1].Status == "gone"
	})
	if code, text := get(t, c, base+"metrics"); code != 200 || !strings.Contains(text, `rtap_port_attached{interface="foo1",port="net_rtap1"} 0`) {
		t.Errorf("metrics: %d, %s", code, text)
	}
	p.end(syscall.SIGINT, exitFailed) // with a connection of ours still open
	p.parseReport()
	if _, err := c.Get(base); err == nil {
		t.Error("somebody still answers")
	}
}

// TestRunHTTPTaken: a port that is in use is an error, and nothing stays open.
func TestRunHTTPTaken(t *testing.T) {
	ns := nettest.NS(t)
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := start(t, ns, "run", "--vdev=net_rtap0", "--duration=0.1", "--http="+l.Addr().String())
	p.wait(exitFailed)
	if !strings.Contains(p.err.String(), "--http") || !strings.Contains(p.err.String(), "in use") {
		t.Errorf("stderr: %s", &p.err)
	}
}
