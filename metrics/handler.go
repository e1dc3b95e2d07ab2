// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed page.html
var page string

// Config is what is served.
type Config struct {
	Source  Source // what to show
	Version string // of the program, for the page and for rtap_build_info
}

type handler struct {
	read    func() view
	version string
	started time.Time
}

// NewHandler returns all pages. It belongs at the root of a server, or anywhere behind [http.StripPrefix]: the page
// names nothing by an absolute path.
//
// A request that came in over loopback must name a loopback address or localhost as its host. Otherwise any web
// page could have its own name resolved to 127.0.0.1 and read what is served (DNS rebinding). A proxy on the same
// machine has to set the host to localhost.
func NewHandler(cfg Config) http.Handler { return newHandler(cfg.Source.read, cfg.Version) }

func newHandler(read func() view, version string) http.Handler {
	h := &handler{read: read, version: version, started: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePage)
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.HandleFunc("GET /api/ports", h.ports)
	mux.Handle("GET /metrics", h.prometheus())
	return guard(mux)
}

// maxScrapes is how many scrapes may run at once.
const maxScrapes = 8

// prometheus serves the ports, this process and the Go runtime, as is customary for a daemon.
func (h *handler) prometheus() http.Handler {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "rtap_build_info", Help: "The program's version: always 1.",
		ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(h.version, "?"), "go_version": runtime.Version()}})
	build.Set(1)
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector(h.read), build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// Of what cannot be read the rest is served.
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes})
}

func servePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(page))
}

// pagePolicy lets the page use its own script and style, recognised by their hashes, and ask this server.
var pagePolicy = strings.Join([]string{
	"default-src 'none'",
	"script-src " + hashOf(page, "script"),
	"style-src " + hashOf(page, "style"),
	"connect-src 'self'",
	"img-src data:", // the icon
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
}, "; ")

// hashOf is the source expression of an element's content (CSP level 2).
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// guard sets what holds for every answer, and refuses foreign hosts.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cache-Control":                "no-store",
		} {
			w.Header().Set(name, value)
		}
		if !hostAllowed(r) {
			http.Error(w, "this server is asked by localhost or a loopback address, not by "+strconv.Quote(r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostAllowed refuses foreign names on connections that came in over loopback.
func hostAllowed(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return true
	}
	addr, err := netip.ParseAddrPort(local.String())
	if err != nil || !addr.Addr().Unmap().IsLoopback() {
		return true
	}
	return isLoopbackName(hostname(r.Host))
}

// hostname is the host of a Host header, without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func isLoopbackName(name string) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().IsLoopback()
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost") // RFC 6761
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // whoever asked has gone
}
