// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestReadmeProgram: the program that README shows is the one that is built.
func TestReadmeProgram(t *testing.T) {
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(read(t, "README.md"))
	if shown == nil {
		t.Fatal("README.md shows no Go program")
	}
	if !strings.HasSuffix(read(t, "examples/echo/main.go"), shown[1]) {
		t.Error("README.md's program is not the end of examples/echo/main.go")
	}
}

// TestLinks: what the documents link to within the repository is there.
func TestLinks(t *testing.T) {
	nettest.NeedFast(t) // emulated machines do not have all of it
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, doc := range append(docs, "README.md", "CONTRIBUTING.md") {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
