// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what tests compare with anew")

// TestXStatsGolden: names and order are an interface: testdata has them for a port with
// one queue pair and with two.
func TestXStatsGolden(t *testing.T) {
	for n := 1; n <= 2; n++ {
		d := &Device{pairs: make([]*pair, n)}
		names, err := d.XStatNames()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("testdata/xstats-%d.txt", n), strings.Join(names, "\n")+"\n")
	}
}

// TestNumPortXStats: that many names are not of a queue, and they come first, as ethdev has them.
func TestNumPortXStats(t *testing.T) {
	d := &Device{pairs: make([]*pair, 2)}
	names, err := d.XStatNames()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		ofQueue := strings.HasPrefix(name, "rx_q") || strings.HasPrefix(name, "tx_q")
		if ofQueue != (i >= NumPortXStats()) {
			t.Errorf("id %d, %s: of a queue: %v; the port has the first %d", i, name, ofQueue, NumPortXStats())
		}
	}
}

// TestXStatsDocument: docs/xstats.md says of each statistic what it counts.
func TestXStatsDocument(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Extended statistics\n\nMade from the tables in [xstats.go](../xstats.go) by `go test -run XStats -update .`\n" +
		"In this order, which is that of the ids. N is the queue.\n")
	document(&b, "The port", "", portXStats)
	document(&b, "Each Rx queue, as of any driver", "rx_qN_", rxBasicXStats)
	document(&b, "Each Tx queue, as of any driver", "tx_qN_", txBasicXStats)
	document(&b, "Each Rx queue", "rx_qN_", rxXStats)
	document(&b, "Each Tx queue", "tx_qN_", txXStats)
	golden(t, "docs/xstats.md", b.String())
}

func document[T any](b *bytes.Buffer, title, prefix string, table []xstat[T]) {
	fmt.Fprintf(b, "\n## %s\n\n| name | what it counts |\n|---|---|\n", title)
	for _, x := range table {
		fmt.Fprintf(b, "| `%s%s` | %s |\n", prefix, x.name, x.about)
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, path); got != want {
		t.Errorf("%s is different (go test -run XStats -update . writes it anew): got\n%s", path, got)
	}
}
