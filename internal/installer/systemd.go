package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// systemdSocket is systemd's own, which root may use without a message bus.
const systemdSocket = "/run/systemd/private"

// Bus is Systemd over the socket of the systemd that runs the node. Close ends it.
type Bus struct{ conn *systemd.Conn }

var _ Systemd = (*Bus)(nil)

// Dial connects to the systemd whose socket is below root.
func Dial(ctx context.Context, root string) (*Bus, error) {
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) {
		conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(filepath.Join(root, systemdSocket)), dbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	})
	if err != nil {
		return nil, fmt.Errorf("connect to systemd below %s: %w", root, err)
	}
	return &Bus{conn}, nil
}

// Close ends the connection.
func (b *Bus) Close() { b.conn.Close() }

// Reload implements Systemd.
func (b *Bus) Reload(ctx context.Context) error {
	if err := b.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reload the units of systemd: %w", err)
	}
	return nil
}

// Enable implements Systemd.
func (b *Bus) Enable(ctx context.Context, unit string) error {
	if _, _, err := b.conn.EnableUnitFilesContext(ctx, []string{unit}, false, true); err != nil {
		return fmt.Errorf("enable %s: %w", unit, err)
	}
	return nil
}

// Disable implements Systemd.
func (b *Bus) Disable(ctx context.Context, unit string) error {
	if _, err := b.conn.DisableUnitFilesContext(ctx, []string{unit}, false); err != nil {
		return fmt.Errorf("disable %s: %w", unit, missing(err))
	}
	return nil
}

// Restart implements Systemd.
func (b *Bus) Restart(ctx context.Context, unit string) error {
	return b.job(ctx, "restart", unit, b.conn.RestartUnitContext)
}

// Stop implements Systemd; a unit that is not there is an fs.ErrNotExist.
func (b *Bus) Stop(ctx context.Context, unit string) error {
	return b.job(ctx, "stop", unit, b.conn.StopUnitContext)
}

// Run starts a command as a service of its own and waits until it has ended well.
func (b *Bus) Run(ctx context.Context, unit string, argv []string) error {
	return b.job(ctx, "run", unit, func(ctx context.Context, name, mode string, done chan<- string) (int, error) {
		return b.conn.StartTransientUnitContext(ctx, name, mode, []systemd.Property{
			systemd.PropDescription("Installation of userns-shim"),
			systemd.PropType("oneshot"),
			systemd.PropExecStart(argv, false),
			{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
		}, done)
	})
}

type startJob func(ctx context.Context, name, mode string, done chan<- string) (int, error)

// job waits for the end of what it starts.
func (b *Bus) job(ctx context.Context, verb, unit string, start startJob) error {
	done := make(chan string, 1)
	if _, err := start(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, missing(err))
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, unit, ctx.Err())
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s %s: systemd says that the job ended as %q", verb, unit, result)
		}
		return nil
	}
}

// missing lets a unit that systemd does not know be an fs.ErrNotExist.
func missing(err error) error {
	var e dbus.Error
	if errors.As(err, &e) && (e.Name == "org.freedesktop.systemd1.NoSuchUnit" || e.Name == "org.freedesktop.DBus.Error.FileNotFound") {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}
