// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

// Places in the machine.
const (
	treeDir   = "/src"    // the module's tree
	binaryDir = "/test"   // the test binaries
	moduleDir = "/module" // the kernel's modules
)

// maxTreeFile leaves out what is no source and no test's data.
const maxTreeFile = 1 << 20

// What runs leave out.
var (
	// The tests' own tools, which all others use.
	tools = []string{"internal/nettest", "internal/traffic", "test/kernels", "test/kernels/plan"}
	// Packages whose tests ask nothing of the kernel that one release does otherwise than another: what is computed,
	// sockets and files. The oldest runs them.
	anyKernel = []string{
		"header", "vnethdr", "mbuf", "metrics", "telemetry", "internal/epoll", "internal/ipc", "internal/runtimedir", "internal/shm",
	}
	// Packages that know nothing of engines.
	anyEngine = []string{"gso", "internal/netns", "internal/rtnl", "internal/tuntap", "internal/uring", "examples/bridge",
		"examples/generator", "examples/nat"}
	theCommand = []string{"cmd/rtap"}
)

// suite is what goes into every machine.
type suite struct {
	module string // root directory here
	build  string // where the binaries are here
	init   string // the init program here
	tests  []plan.Test
}

// buildSuite builds init and every package's tests.
func buildSuite(ctx context.Context, cfg *config) (*suite, error) {
	s := &suite{module: cfg.module, build: filepath.Join(cfg.cache, "build")}
	s.init = filepath.Join(s.build, "init")
	if err := os.RemoveAll(s.build); err != nil { // binaries of packages that are no more
		return nil, err
	}
	if err := os.MkdirAll(s.build, 0o755); err != nil {
		return nil, err
	}
	if err := goBuild(ctx, ".", "build", "-o", s.init, "github.com/rtap-project/rtap/test/kernels/init"); err != nil {
		return nil, err
	}
	packages, err := listPackages(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for i, p := range packages {
		if err := s.add(ctx, cfg, i, p); err != nil {
			return nil, err
		}
	}
	if len(s.tests) == 0 {
		return nil, fmt.Errorf("no package with tests matches %s", strings.Join(cfg.packages, " "))
	}
	return s, nil
}

// of are the tests of a run.
func (s *suite) of(cfg *config, r run) []plan.Test {
	if !slices.Equal(cfg.packages, everything) {
		return s.tests
	}
	var tests []plan.Test
	for _, t := range s.tests {
		dir, err := filepath.Rel(treeDir, t.Dir)
		if err != nil || slices.Contains(r.leave, dir) {
			continue
		}
		if only := r.only[dir]; only != "" {
			t.Args = append(slices.Clone(t.Args), "-test.run="+only)
		}
		tests = append(tests, t)
	}
	return tests
}

// goEnv is how go builds what runs in the machines: static, for the machines' own architecture.
func goEnv() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
}

func goBuild(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, goEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

// parts are the modules below the root's that have tests for all kernels.
var parts = []string{"metrics", "cmd/rtap"}

// listPackages finds the packages that have tests, in every module.
func listPackages(ctx context.Context, cfg *config) ([]goPackage, error) {
	var all []goPackage
	for _, part := range append([]string{"."}, parts...) {
		patterns := patternsIn(part, cfg.packages)
		if len(patterns) == 0 {
			continue
		}
		packages, err := listModule(ctx, filepath.Join(cfg.module, part), patterns)
		if err != nil {
			return nil, err
		}
		all = append(all, packages...)
	}
	return all, nil
}

// patternsIn are those of the patterns, which are seen from the root, that mean packages of a module, seen
// from there.
func patternsIn(part string, patterns []string) []string {
	var in []string
	for _, p := range patterns {
		owner := slices.IndexFunc(parts, func(o string) bool { return p == "./"+o || strings.HasPrefix(p, "./"+o+"/") })
		switch {
		case p == "./...":
			in = append(in, p)
		case owner < 0 && part == ".":
			in = append(in, p)
		case owner >= 0 && parts[owner] == part:
			in = append(in, "."+strings.TrimPrefix(p, "./"+part))
		}
	}
	return in
}

func listModule(ctx context.Context, dir string, patterns []string) ([]goPackage, error) {
	args := append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, goEnv(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			packages = append(packages, p)
		}
	}
	return packages, nil
}

// add builds a package's tests. Symbol tables are left out (tracebacks do without), vet runs elsewhere.
func (s *suite) add(ctx context.Context, cfg *config, i int, p goPackage) error {
	rel, err := filepath.Rel(s.module, p.Dir)
	if err != nil {
		return err
	}
	binary := fmt.Sprintf("%02d-%s.test", i, path.Base(p.ImportPath)) // base names alone need not be unique
	out := filepath.Join(s.build, binary)
	if err := goBuild(ctx, p.Dir, "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", out, "."); err != nil {
		return err
	}
	s.tests = append(s.tests, plan.Test{
		Package: p.ImportPath,
		Binary:  path.Join(binaryDir, binary),
		Dir:     path.Join(treeDir, filepath.ToSlash(rel)),
		Args: append([]string{
			"-test.v=test2json", "-test.short=false", "-test.paniconexit0",
			"-test.timeout=" + cfg.perTest.String(),
		}, cfg.testArgs...),
		// Later than the tests' own limit, which shows where they hang.
		Timeout: cfg.perTest + cfg.perTest/10,
		Silence: cfg.silence,
	})
	return nil
}

// plan is the work for one boot.
func (s *suite) plan(cfg *config, k *kernel, r run, tests []plan.Test) *plan.Plan {
	p := &plan.Plan{
		Env: []string{
			"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "CI=true", "GOTRACEBACK=all",
			"RTAP_TEST_VM=1", "RTAP_TEST_SCALE=" + strconv.Itoa(cfg.scale),
		},
		// 32 MB, for the tests of pools in huge pages.
		Sysctls: map[string]string{"vm/nr_hugepages": "16"},
		Tests:   tests,
	}
	for key, value := range r.sysctls {
		p.Sysctls[key] = value
	}
	for _, m := range k.modules {
		p.Modules = append(p.Modules, plan.Module{Path: path.Join(moduleDir, m), Params: params[m]})
	}
	return p
}

// initramfs writes the file system of one run's machine.
func (s *suite) initramfs(file string, cfg *config, k *kernel, r run, tests []plan.Test) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	c := newCPIOWriter(f)
	for _, add := range []func(*cpioWriter) error{
		func(c *cpioWriter) error { return c.copy("/init", 0o755, s.init) },
		s.addBinaries, s.addTree, k.addModules,
		func(c *cpioWriter) error { return addPlan(c, s.plan(cfg, k, r, tests)) },
	} {
		if err := add(c); err != nil {
			return err
		}
	}
	return c.close()
}

func (s *suite) addBinaries(c *cpioWriter) error {
	for _, t := range s.tests {
		if err := c.copy(t.Binary, 0o755, filepath.Join(s.build, path.Base(t.Binary))); err != nil {
			return err
		}
	}
	return nil
}

// addTree copies the module's small files, so that each test finds in its directory what it finds there at
// home. Modules that are not tested there, the cache and what git keeps stay behind.
func (s *suite) addTree(c *cpioWriter) error {
	return filepath.WalkDir(s.module, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return s.enter(name)
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxTreeFile {
			return err
		}
		rel, err := filepath.Rel(s.module, name)
		if err != nil {
			return err
		}
		return c.copy(path.Join(treeDir, filepath.ToSlash(rel)), info.Mode(), name)
	})
}

// enter is nil for a directory that belongs to the tree, and fs.SkipDir for others.
func (s *suite) enter(name string) error {
	switch name {
	case s.module:
		return nil
	case filepath.Join(s.module, ".git"), filepath.Join(s.module, ".cache"), filepath.Join(s.module, "bin"):
		return fs.SkipDir
	}
	rel, err := filepath.Rel(s.module, name)
	if err != nil || slices.Contains(parts, filepath.ToSlash(rel)) {
		return err
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func (k *kernel) addModules(c *cpioWriter) error {
	for _, m := range k.modules {
		if err := c.copy(path.Join(moduleDir, m), 0o644, filepath.Join(k.dir, m)); err != nil {
			return err
		}
	}
	return nil
}

func addPlan(c *cpioWriter, p *plan.Plan) error {
	body, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	return c.file(plan.File, 0o644, append(body, '\n'))
}
