// Command nriplugin is an NRI plugin for end-to-end tests. It writes each request down, one line of JSON for
// each, and answers as the file says that a test writes. It stands for the plugins of others: nothing of
// userns-shim is in it.
//
// With -socket it connects, and again when the connection ends. Without, it was started by the runtime: then the
// plugin's configuration is the directory that -dir is otherwise.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/containerd/nri/pkg/stub"
)

// reconnect is the pause between attempts to connect.
const reconnect = 50 * time.Millisecond

func main() {
	socket := flag.String("socket", "", "where the runtime listens")
	dir := flag.String("dir", "", "directory of the script, the log and the updates")
	name := flag.String("name", "test", "name of the plugin")
	index := flag.String("index", "10", "index of the plugin")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &plugin{files: files{dir: *dir}}
	if *socket == "" {
		if err := serve(ctx, p); err != nil {
			fail(err)
		}
		return
	}
	for ctx.Err() == nil {
		err := serve(ctx, p, stub.WithSocketPath(*socket), stub.WithPluginName(*name), stub.WithPluginIdx(*index))
		if err != nil {
			fmt.Fprintln(os.Stderr, "nriplugin:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "nriplugin:", err)
	os.Exit(1)
}

// serve is one connection, from its beginning to its end.
func serve(ctx context.Context, p *plugin, options ...stub.Option) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := stub.New(p, append(options, stub.WithOnClose(cancel))...)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	defer s.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnect):
		}
		if err := p.unasked(s); err != nil {
			return err
		}
	}
}

// unasked asks for the updates that a test has put into a file, and takes the file away.
func (p *plugin) unasked(s stub.Stub) error {
	path := p.files.path(updatesFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	var texts []json.RawMessage
	if err := json.Unmarshal(data, &texts); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	updates, err := parseUpdates(texts)
	if err != nil {
		return err
	}
	failed, err := s.UpdateContainers(updates)
	return p.files.write(entry{Event: "unasked", Failed: len(failed), Error: text(err)})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
