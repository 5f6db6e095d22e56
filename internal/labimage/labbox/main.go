// Command labbox is the stand-in for busybox in lab images on machines without Debian's
// busybox-static. It acts as the applet by whose name it is called and knows the few that the
// demo and the self-test use. It is no shell and no replacement for busybox in general.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var applets = map[string]func(args []string) error{
	"cat":      cat,
	"echo":     echo,
	"false":    func([]string) error { os.Exit(1); return nil },
	"hostname": hostname,
	"id":       id,
	"ls":       list,
	"mkdir":    mkdir,
	"sleep":    sleep,
	"stat":     stat,
	"touch":    touch,
	"true":     func([]string) error { return nil },
}

func main() {
	args := os.Args
	name := filepath.Base(args[0])
	if _, ok := applets[name]; !ok && len(args) > 1 {
		args = args[1:]
		name = args[0]
	}
	if name == "--list" {
		for _, name := range sortedApplets() {
			fmt.Println(name)
		}
		return
	}
	run, ok := applets[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "labbox: no applet %q\n", name)
		os.Exit(127)
	}
	if err := run(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func sortedApplets() []string {
	var names []string
	for name := range applets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func cat(args []string) error {
	for _, name := range args {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, file)
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func echo(args []string) error {
	_, err := fmt.Println(strings.Join(args, " "))
	return err
}

func hostname([]string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	_, err = fmt.Println(name)
	return err
}

// id prints numbers only: names would need a parser of /etc/passwd that nothing here uses.
func id(args []string) error {
	if slices.Equal(args, []string{"-u"}) {
		_, err := fmt.Println(os.Geteuid())
		return err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	var list []string
	for _, group := range groups {
		list = append(list, strconv.Itoa(group))
	}
	_, err = fmt.Printf("uid=%d gid=%d groups=%s\n", os.Geteuid(), os.Getegid(), strings.Join(list, ","))
	return err
}

func list(args []string) error {
	dir := "."
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			dir = arg
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %d %d %d %s\n", info.Mode(), owner.Uid, owner.Gid, info.Size(), entry.Name())
	}
	return nil
}

func mkdir(args []string) error {
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if err := os.MkdirAll(name, 0o777); err != nil {
			return err
		}
	}
	return nil
}

// sleep ends on SIGTERM, which a first process of a PID namespace would otherwise ignore.
func sleep(args []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if len(args) != 1 {
		return fmt.Errorf("want one argument, have %d", len(args))
	}
	duration, err := seconds(args[0])
	if err != nil {
		return err
	}
	select {
	case <-time.After(duration):
	case s := <-stop:
		os.Exit(128 + int(s.(syscall.Signal)))
	}
	return nil
}

func seconds(text string) (time.Duration, error) {
	if text == "infinity" {
		return time.Duration(1<<63 - 1), nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, err
	}
	return time.Duration(n * float64(time.Second)), nil
}

// stat understands -c with %u %g %a %n, which is what the demo asks for.
func stat(args []string) error {
	format := "%n %u:%g %a"
	if len(args) > 2 && args[0] == "-c" {
		format, args = args[1], args[2:]
	}
	for _, name := range args {
		var st syscall.Stat_t
		if err := syscall.Lstat(name, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: name, Err: err}
		}
		fmt.Println(strings.NewReplacer(
			"%u", strconv.Itoa(int(st.Uid)), "%g", strconv.Itoa(int(st.Gid)),
			"%a", strconv.FormatInt(int64(st.Mode&0o7777), 8), "%n", name).Replace(format))
	}
	return nil
}

func touch(args []string) error {
	for _, name := range args {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		now := time.Now()
		if err := os.Chtimes(name, now, now); err != nil {
			return err
		}
	}
	return nil
}
