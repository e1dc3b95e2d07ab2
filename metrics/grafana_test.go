// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// dashboard is the part of a Grafana dashboard that the test looks at.
type dashboard struct {
	UID           string
	SchemaVersion int
	Panels        []struct {
		ID          int
		Type, Title string
		GridPos     struct{ X, Y, W, H int }
		Datasource  struct{ UID string }
		Targets     []struct{ Expr string }
		Panels      []json.RawMessage // of a collapsed row
	}
	Templating struct {
		List []struct {
			Name, Type, Definition string
			Query                  json.RawMessage
		}
	}
}

var metricInQuery = regexp.MustCompile(`\b(?:rtap|process|go)_[a-z0-9_]+`)

// TestDashboard: every metric that docs/grafana.json asks for is exported, under that name and with those labels.
func TestDashboard(t *testing.T) {
	body, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	var queries []string
	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type == "datasource" && string(v.Query) != `"prometheus"` {
			t.Errorf("the data source is %s", v.Query)
		}
		if v.Type == "query" {
			queries = append(queries, v.Definition)
		}
	}
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || len(p.Panels) > 0 {
			t.Errorf("panel %d: %+v", i, p)
		}
		ids[p.ID] = true
		for _, o := range d.Panels[:i] {
			a, b := p.GridPos, o.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%q lies over %q", p.Title, o.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%q asks %q for %d things", p.Title, p.Datasource.UID, len(p.Targets))
		}
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	if d.SchemaVersion < 36 || d.UID == "" || !variables["datasource"] || len(queries) < 20 {
		t.Errorf("schema %d, uid %q, variables %v, %d queries", d.SchemaVersion, d.UID, variables, len(queries))
	}
	exported := scrape(t, everything(t))
	for _, q := range queries {
		checkQuery(t, q, exported, variables)
	}
}

// everything is a port with all statistics, and a pool.
func everything(t *testing.T) func() view {
	t.Helper()
	p, err := mbuf.NewPool(mbuf.Config{Name: "rtap", Count: 64})
	nettest.NeedLinux(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() view {
		v := fakes(newFake(1))()
		v.pools = []pool{{"rtap", p}}
		return v
	}
}

var (
	selector = regexp.MustCompile(`([a-z0-9_]+)\{([^}]*)\}`)
	label    = regexp.MustCompile(`([a-z_]+)(?:=~|=|!=|!~)"([^"]*)"`)
	variable = regexp.MustCompile(`\$([a-z]+)`)
)

func checkQuery(t *testing.T, query, exported string, variables map[string]bool) {
	t.Helper()
	names := metricInQuery.FindAllString(query, -1)
	if len(names) == 0 {
		t.Errorf("%s names no metric", query)
	}
	for _, n := range names {
		if !regexp.MustCompile(`(?m)^` + n + `[ {]`).MatchString(exported) {
			t.Errorf("%s: there is no %s", query, n)
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(query, pair[:1]) != strings.Count(query, pair[1:]) {
			t.Errorf("%s: %s", query, pair)
		}
	}
	for _, v := range variable.FindAllStringSubmatch(strings.ReplaceAll(query, "$__rate_interval", ""), -1) {
		if !variables[v[1]] {
			t.Errorf("%s: there is no variable %s", query, v[1])
		}
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, l := range label.FindAllStringSubmatch(s[2], -1) {
			has := regexp.MustCompile(`(?m)^` + s[1] + `\{[^}]*\b` + l[1] + `="`).MatchString(exported)
			if l[1] != "instance" && !has { // that one is Prometheus' own
				t.Errorf("%s: %s has no label %s", query, s[1], l[1])
			}
		}
	}
}
