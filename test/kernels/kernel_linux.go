// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the modules that the tests need. Debian builds each of them as a module in every release; what
// else they use (packet sockets, IPv6, io_uring) is part of the kernel proper.
var wanted = []string{"tun", "veth", "dummy", "bridge", "8021q", "vxlan"}

// params are modules' parameters by file name. dummy would make an interface in the first namespace.
var params = map[string]string{"dummy.ko": "numdummies=0"}

// kernel is a kernel unpacked into a directory: the image as "vmlinuz", the wanted modules and those they
// depend on, decompressed, and the order to load them in "modules.load".
type kernel struct {
	version string // the Debian package's
	dir     string
	modules []string // file names, in the order to load them
}

func (k *kernel) image() string { return filepath.Join(k.dir, "vmlinuz") }

// fetchKernel returns the newest kernel of a release, from the cache when it is there.
func fetchKernel(ctx context.Context, cfg *config, mirror, suite string) (*kernel, error) {
	a, err := newApt(filepath.Join(cfg.cache, "apt", suite), mirror, suite)
	if err != nil {
		return nil, err
	}
	if err := a.update(ctx, cfg.refresh); err != nil {
		return nil, err
	}
	version, names, err := a.packages(ctx)
	if err != nil {
		return nil, err
	}
	k := &kernel{version: version, dir: filepath.Join(cfg.cache, "kernel", version)}
	if k.readLoadOrder() == nil && k.hasWanted() {
		return k, nil
	}
	debs, err := a.download(ctx, names)
	if err != nil {
		return nil, err
	}
	if err := k.unpack(ctx, debs); err != nil {
		return nil, err
	}
	for _, name := range debs {
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// loadOrder is written last: a directory that has it is complete.
const loadOrder = "modules.load"

func (k *kernel) readLoadOrder() error {
	body, err := os.ReadFile(filepath.Join(k.dir, loadOrder))
	k.modules = strings.Fields(string(body))
	return err
}

// hasWanted is false for a directory that was made when less was wanted.
func (k *kernel) hasWanted() bool {
	for _, name := range wanted {
		if !slices.ContainsFunc(k.modules, func(file string) bool { return moduleName(file) == name }) {
			return false
		}
	}
	return true
}

// unpack takes image and modules out of the packages.
func (k *kernel) unpack(ctx context.Context, debs []string) error {
	var image []byte
	packed := make(map[string][]byte) // modules by file name, without what says how they are compressed
	for _, deb := range debs {
		err := readDeb(ctx, deb, func(name string, r io.Reader) (err error) {
			base := path.Base(name)
			switch {
			case strings.HasPrefix(base, "vmlinuz"):
				image, err = io.ReadAll(r)
			case strings.HasSuffix(base, ".ko"), strings.HasSuffix(base, ".ko.xz"):
				packed[moduleName(base)], err = io.ReadAll(r)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", deb, err)
		}
	}
	if image == nil {
		return errors.New("no vmlinuz in " + strings.Join(debs, ", "))
	}
	modules, err := resolve(wanted, func(name string) ([]byte, error) { return unpackModule(ctx, packed, name) })
	if err != nil {
		return err
	}
	return k.write(image, modules)
}

// moduleName is the name that the kernel and "depends=" use.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(file, ".xz"), ".ko"), "-", "_")
}

// xzMagic begins every xz file.
const xzMagic = "\xfd7zXZ\x00"

func unpackModule(ctx context.Context, packed map[string][]byte, name string) ([]byte, error) {
	body, ok := packed[name]
	if !ok {
		return nil, fmt.Errorf("no module %s in the packages", name)
	}
	if !bytes.HasPrefix(body, []byte(xzMagic)) {
		return body, nil
	}
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(body), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("decompress module %s: %w", name, err)
	}
	return out, nil
}

// module is one loadable module, decompressed.
type module struct {
	name string
	body []byte
}

// resolve returns the named modules and all that they depend on, each after its dependencies.
func resolve(names []string, get func(name string) ([]byte, error)) ([]module, error) {
	var modules []module
	visited := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		if visited[name] {
			return nil
		}
		visited[name] = true
		body, err := get(name)
		if err != nil {
			return err
		}
		deps, err := depends(body)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range deps {
			if err := visit(moduleName(d)); err != nil {
				return err
			}
		}
		modules = append(modules, module{name, body})
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return modules, nil
}

// depends reads the names after "depends=" in a module's .modinfo section, which is a list of
// NUL-terminated strings.
func depends(body []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	return parseDepends(info), nil
}

func parseDepends(info []byte) []string {
	var deps []string
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(field), "depends="); ok {
			deps = append(deps, strings.FieldsFunc(list, func(r rune) bool { return r == ',' })...)
		}
	}
	return deps
}

// write stores image, modules and, last, the order to load them.
func (k *kernel) write(image []byte, modules []module) error {
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(k.image(), image, 0o644); err != nil {
		return err
	}
	k.modules = nil
	for _, m := range modules {
		file := m.name + ".ko"
		if err := os.WriteFile(filepath.Join(k.dir, file), m.body, 0o644); err != nil {
			return err
		}
		k.modules = append(k.modules, file)
	}
	order := strings.Join(slices.Concat(k.modules, []string{""}), "\n")
	return os.WriteFile(filepath.Join(k.dir, loadOrder), []byte(order), 0o644)
}
