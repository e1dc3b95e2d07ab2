// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// keyring is Debian's own, which knows the signatures of all its releases.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// metaPackage depends, directly or not, on the newest cloud kernel of its release.
const metaPackage = "linux-image-cloud-amd64"

// listAge is how old the package lists may get before the mirror is asked again.
const listAge = 24 * time.Hour

// checkTools says at once what is missing and where it is to be had.
func checkTools() error {
	var missing []string
	for _, t := range [...]struct{ name, pkg string }{
		{"apt-get", "apt"}, {"apt-cache", "apt"}, {"dpkg-deb", "dpkg"}, {"xz", "xz-utils"},
		{"qemu-system-x86_64", "qemu-system-x86"},
	} {
		if _, err := exec.LookPath(t.name); err != nil {
			missing = append(missing, fmt.Sprintf("%s (Debian package %s)", t.name, t.pkg))
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		missing = append(missing, keyring+" (Debian package debian-archive-keyring)")
	}
	if len(missing) != 0 {
		return errors.New("missing: " + strings.Join(missing, ", "))
	}
	return nil
}

// fetchKernels gets the kernel of every run's release, by release.
func fetchKernels(ctx context.Context, cfg *config, selected []run) (map[string]*kernel, error) {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return nil, err
	}
	kernels := make(map[string]*kernel)
	for _, r := range selected {
		if kernels[r.suite] != nil {
			continue
		}
		start := time.Now()
		k, err := fetchKernel(ctx, cfg, mirror, r.suite)
		if err != nil {
			return nil, fmt.Errorf("kernel of Debian %s: %w", r.suite, err)
		}
		fmt.Printf("kernel of Debian %s: %s (%.0f s)\n", r.suite, k.version, time.Since(start).Seconds())
		kernels[r.suite] = k
	}
	return kernels, nil
}

// inRelease matches what apt-get update would fetch first of each of this machine's sources.
var inRelease = regexp.MustCompile(`(?m)^'(\S+)/dists/([a-z]+)/InRelease'`)

// debianMirror is the address of the Debian archive that this machine's own apt sources name.
func debianMirror(ctx context.Context) (string, error) {
	out, err := command(ctx, "", "apt-get", "update", "--print-uris")
	if err != nil {
		return "", err
	}
	return pickMirror(out)
}

// pickMirror takes the first source that has a whole release: not its updates, not its security archive,
// and not somebody else's packages for it.
func pickMirror(uris []byte) (string, error) {
	for _, m := range inRelease.FindAllSubmatch(uris, -1) {
		if path.Base(string(m[1])) == "debian" {
			return string(m[1]), nil
		}
	}
	return "", errors.New("no Debian archive among this machine's apt sources (address ending in /debian)")
}

// apt runs apt's tools for one release on a state of its own.
type apt struct {
	dir string // absolute
}

// newApt writes the configuration. Of the machine's own apt configuration, what concerns the network
// (proxies, credentials, certificates) still holds; its sources, lists and hooks do not.
func newApt(dir, mirror, suite string) (*apt, error) {
	a := &apt{dir: dir}
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"sources.list": fmt.Sprintf("deb [arch=amd64 target=Packages signed-by=%s] %s %s main\n", keyring, mirror, suite),
		"status":       "",
		"apt.conf":     strings.ReplaceAll(aptConf, "DIR", dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// The sandbox user would have to be able to enter every directory above this one.
const aptConf = `Dir::State "DIR";
Dir::State::Lists "DIR/lists";
Dir::State::Status "DIR/status";
Dir::Cache "DIR";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::SourceList "DIR/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`

func (a *apt) run(ctx context.Context, tool string, args ...string) ([]byte, error) {
	return command(ctx, a.dir, tool, append([]string{"-c", filepath.Join(a.dir, "apt.conf"), "-q"}, args...)...)
}

// update fetches the package lists, unless that was done within a day. An unreachable mirror is no error
// while there are older lists.
func (a *apt) update(ctx context.Context, refresh bool) error {
	stamp := filepath.Join(a.dir, "updated")
	info, statErr := os.Stat(stamp)
	if statErr == nil && !refresh && time.Since(info.ModTime()) < listAge {
		return nil
	}
	if _, err := a.run(ctx, "apt-get", "update", "--error-on=any"); err != nil {
		if statErr != nil {
			return err
		}
		fmt.Println("using the package lists of", info.ModTime().Format(time.DateOnly)+":", err)
		return nil
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// versioned matches the packages that a kernel is made of: up to 6.12 one, later the image, the binary and
// the modules.
var versioned = regexp.MustCompile(`linux-(image|binary|modules)-[0-9][^ ,|]*`)

// packages follows the meta package's dependencies to the ones that hold the kernel, and returns their
// version and their names.
func (a *apt) packages(ctx context.Context) (version string, names []string, err error) {
	seen := make(map[string]bool)
	for queue := []string{metaPackage}; len(queue) > 0; queue = queue[1:] {
		out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", queue[0])
		if err != nil {
			return "", nil, err
		}
		if version == "" {
			version = field(out, "Version")
		}
		for _, dep := range versioned.FindAllString(field(out, "Depends"), -1) {
			if !seen[dep] {
				seen[dep] = true
				names = append(names, dep)
				queue = append(queue, dep)
			}
		}
	}
	if len(names) == 0 || version == "" {
		return "", nil, fmt.Errorf("%s names no kernel", metaPackage)
	}
	return version, names, nil
}

// field is the value of a field of a control paragraph (deb822(5)) that does not go over several lines.
func field(paragraph []byte, name string) string {
	for line := range strings.Lines(string(paragraph)) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// download fetches packages, checked by apt against the signed lists, and returns their files' names.
func (a *apt) download(ctx context.Context, names []string) ([]string, error) {
	debs := filepath.Join(a.dir, "*.deb")
	old, err := filepath.Glob(debs)
	if err != nil {
		return nil, err
	}
	for _, name := range old { // of an interrupted run
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	if _, err := a.run(ctx, "apt-get", append([]string{"download"}, names...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(debs)
}

// readDeb calls f with every regular file of a package.
func readDeb(ctx context.Context, name string, f func(name string, r io.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", name)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = readTar(pipe, f)
	if err == nil {
		_, err = io.Copy(io.Discard, pipe) // the padding: dpkg-deb complains of a reader that leaves early
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return cmd.Wait()
}

func readTar(r io.Reader, f func(name string, r io.Reader) error) error {
	for t := tar.NewReader(bufio.NewReader(r)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := f(strings.TrimPrefix(h.Name, "./"), t); err != nil {
			return err
		}
	}
}

// command runs a program in dir and returns what it printed; its error has the program's own words.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(stderr.String() + "\n" + string(out))
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return out, nil
}
