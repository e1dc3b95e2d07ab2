// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
)

// ask does one request over loopback.
func ask(h http.Handler, method, path, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9100}))
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHealth(t *testing.T) {
	a, b := newFake(1), newFake(1)
	b.info.Name, b.link.Name = "foo1", "foo1"
	h := newHandler(fakes(a, b), "v1")
	check := func(code int, status string, want ...string) {
		t.Helper()
		w := ask(h, "GET", "/healthz", "localhost:9100")
		var got health
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if w.Code != code || got.Status != status || len(got.Ports) != 2 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, s := range want {
			if !strings.Contains(w.Body.String(), s) {
				t.Errorf("no %s in %s", s, w.Body)
			}
		}
	}
	check(200, "ok", `"port":"net_rtap1","interface":"foo1","status":"ok"`)
	b.set(func() { b.err, b.linkErr = rtap.ErrGone, errors.New("read link of foo1: it is gone") })
	check(503, "failing", `"port":"net_rtap0","interface":"foo0","status":"ok"`, `"port":"net_rtap1","interface":"foo1","status":"gone"`)
	b.set(func() { b.err, b.linkErr = rtap.ErrClosed, rtap.ErrClosed })
	check(503, "failing", `"status":"closed"`)
	b.set(func() { b.err, b.linkErr = nil, errors.New("netlink: no answer") })
	check(503, "failing", `"status":"unreadable"`, "netlink: no answer")
	b.set(func() { b.err, b.linkErr, b.link.Up = nil, nil, false })
	check(200, "ok") // down is what somebody wanted
}

// TestReadOnly: there is nothing that a request could change.
func TestReadOnly(t *testing.T) {
	h := newHandler(fakes(newFake(1)), "v1")
	for _, path := range []string{"/", "/metrics", "/healthz", "/api/ports"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if w := ask(h, method, path, "localhost"); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
		if w := ask(h, "HEAD", path, "localhost"); w.Code != 200 {
			t.Errorf("HEAD %s: %d", path, w.Code)
		}
	}
	if w := ask(h, "GET", "/api/none", "localhost"); w.Code != 404 {
		t.Errorf("/api/none: %d", w.Code)
	}
}

// TestForeignHosts: a name that an attacker lets point to 127.0.0.1 is refused.
func TestForeignHosts(t *testing.T) {
	h := newHandler(fakes(newFake(1)), "v1")
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9100": 200, "LocalHost.": 200, "127.0.0.1:9100": 200, "127.9.9.9": 200, "[::1]:9100": 200, "[::1]": 200,
		"rtap.localhost:1": 200, "[::ffff:127.0.0.1]": 200,
		"evil.example": 421, "evil.example:9100": 421, "localhost.evil.example": 421, "192.0.2.1": 421, "": 421, "127.0.0.1.evil.example": 421,
		"evillocalhost": 421,
	} {
		for _, path := range []string{"/", "/metrics", "/healthz", "/api/ports"} {
			if w := ask(h, "GET", path, host); w.Code != want {
				t.Errorf("host %q, %s: %d, want %d", host, path, w.Code, want)
			}
		}
	}
	// Who listens elsewhere is known by names that we do not know.
	r := httptest.NewRequest("GET", "/metrics", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("elsewhere: %d", w.Code)
	}
}

func TestSecurityHeaders(t *testing.T) {
	h := newHandler(fakes(newFake(1)), "v1")
	for _, path := range []string{"/", "/metrics", "/healthz", "/api/ports", "/none"} {
		w := ask(h, "GET", path, "localhost")
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := w.Header().Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
	policy := ask(h, "GET", "/", "localhost").Header().Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || strings.Count(policy, "'sha256-") != 2 {
		t.Errorf("the page's policy is %s", policy)
	}
}

// TestPageAlone: one file, of a bounded size, that names nothing elsewhere.
func TestPageAlone(t *testing.T) {
	if len(page) > 40<<10 {
		t.Errorf("the page has %d bytes", len(page))
	}
	if s := strings.Count(page, "<script"); s != 1 || strings.Count(page, "<style") != 1 {
		t.Errorf("%d scripts; one <script> and one <style> have hashes", s)
	}
	text := strings.ReplaceAll(page, "http://www.w3.org/2000/svg", "") // a name, not an address
	text = strings.ReplaceAll(text, "xmlns='http://www.w3.org/2000/svg'", "")
	if m := regexp.MustCompile(`(?i)https?://|@import|<link rel="stylesheet|innerHTML|\sstyle="|\son[a-z]+="`).FindString(text); m != "" {
		t.Errorf("the page has %q", m)
	}
}

func TestAPI(t *testing.T) {
	f, closed := newFake(2), newFake(1)
	closed.err, closed.linkErr, closed.statsErr, closed.info = rtap.ErrClosed, rtap.ErrClosed, rtap.ErrClosed, rtap.Info{Name: "foo1"}
	h := newHandler(fakes(f, closed), "v1")
	w := ask(h, "GET", "/api/ports", "localhost")
	var a apiPorts
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatal(err)
	}
	p, c := a.Ports[0], a.Ports[1]
	if a.Version != "v1" || len(a.Ports) != 2 || p.Name != "net_rtap0" || p.Status != "ok" || p.Engine != "uring" || p.MTU != 1500 ||
		len(p.Queues) != 2 || p.Stats.IMissed != 99 || !strings.Contains(strings.Join(p.RxOffloads, " "), "tcp_lro") {
		t.Errorf("%+v", p)
	}
	if c.Status != "closed" || c.Stats != nil || c.Error == "" || c.Interface != "foo1" {
		t.Errorf("the closed port: %+v", c)
	}
	// Both queues in one histogram; the last bar has no end.
	want := map[string]uint64{}
	for _, x := range f.xstats {
		if rest, ok := strings.CutPrefix(x.Name, "rx_q"); ok {
			want[rest[len("0_"):]] += x.Value
		}
	}
	sizes := p.Sizes["receive"]
	if len(sizes) != 12 || sizes[0] != (apiBin{64, 64, want["size_64_packets"]}) ||
		sizes[11] != (apiBin{32768, 0, want["size_32768_to_max_packets"]}) || len(p.Bursts["transmit"]) != 10 {
		t.Errorf("sizes %+v, want %v; bursts %+v", sizes, want, p.Bursts)
	}
	for _, x := range p.XStats {
		if strings.Contains(x.Name, "size_") || strings.Contains(x.Name, "good_packets") {
			t.Errorf("%s comes twice", x.Name)
		}
	}
}

func TestUniqueNames(t *testing.T) {
	taken := map[string]bool{}
	var got []string
	for _, name := range []string{"a", "a", "", "", "a-1", "\xff"} {
		got = append(got, unique(taken, name, "port"))
	}
	if s := strings.Join(got, " "); s != "a a-1 port port-1 a-1-1 ?" {
		t.Errorf("names are %q", s)
	}
}

// TestServer: it listens, answers, and leaves nothing.
func TestServer(t *testing.T) {
	before := nettest.Leaks()
	s, err := Listen("127.0.0.1:0", Config{Source: func() View { return View{} }, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + s.Addr().String()
	client := &http.Client{Transport: &http.Transport{}}
	for _, path := range []string{"/", "/metrics", "/healthz", "/api/ports"} {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || err != nil || len(body) == 0 {
			t.Errorf("%s: %d, %v", path, resp.StatusCode, err)
		}
	}
	if _, err := Listen(s.Addr().String(), Config{}); err == nil {
		t.Error("the address is served twice")
	}
	for range 2 { // with a connection that is idle
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Get(url); err == nil {
		t.Error("it answers after Close")
	}
	client.CloseIdleConnections()
	before.Check(t)
}

// TestServerBoundsConnections: who holds many connections keeps others waiting, and no longer than they are held.
func TestServerBoundsConnections(t *testing.T) {
	s, err := Listen("127.0.0.1:0", Config{Source: func() View { return View{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	answered := func(c net.Conn, wait time.Duration) bool {
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(wait))
		n, _ := c.Read(make([]byte, 12))
		return n > 0
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var held []net.Conn
	for range maxConns {
		c := dial()
		defer c.Close()
		held = append(held, c)
		if !answered(c, nettest.Bound(5*time.Second)) {
			t.Fatal("no answer")
		}
	}
	more := dial()
	defer more.Close()
	if answered(more, 100*time.Millisecond) {
		t.Errorf("connection %d is answered", maxConns+1)
	}
	held[0].Close()
	more.SetReadDeadline(time.Now().Add(nettest.Bound(5 * time.Second)))
	if n, err := more.Read(make([]byte, 12)); n == 0 {
		t.Errorf("a connection that was let go serves nobody: %v", err)
	}
}

// TestServerEndsRequests: Close does not wait for a client that reads nothing.
func TestServerEndsRequests(t *testing.T) {
	entered := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-entered
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	c.SetReadDeadline(time.Now().Add(nettest.Bound(5 * time.Second)))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}
