// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestMigration: each piece of code that docs/migration.md shows is part of a file that is compiled.
func TestMigration(t *testing.T) {
	nettest.NeedFast(t)
	var compiled string
	for _, path := range []string{"example_test.go", "../bench/plain/migration_linux_test.go"} {
		compiled += squeeze(read(t, path))
	}
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "../docs/migration.md"), -1)
	if len(shown) < 5 {
		t.Errorf("docs/migration.md shows %d pieces of code", len(shown))
	}
	for _, s := range shown {
		if !strings.Contains(compiled, squeeze(s[1])) {
			t.Errorf("docs/migration.md shows, and no file has:\n%s", s[1])
		}
	}
}

// squeeze leaves out how code is laid out.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") + " " }

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
