package main

import (
	"context"
	"fmt"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/doctor"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
)

// doctorPoolTime bounds a look for foreign owners.
const doctorPoolTime = 20 * time.Second

// doctorPool tells what is wrong with the pool: as the daemon knows it, or while it is down as the configuration and the node show it.
func doctorPool(ctx context.Context, cfg config.Config) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, doctorPoolTime)
	defer cancel()
	client := admin.NewClient(admin.SocketPath(cfg.State))
	check, err := client.PoolCheck(ctx, false)
	if err == nil && check.Scanned.IsZero() {
		check, err = client.PoolCheck(ctx, true)
	}
	if err != nil {
		if check, err = offlineCheck(ctx, cfg); err != nil {
			return []doctor.Finding{{Check: "pool", Severity: doctor.Unknown, Message: err.Error(), Remedy: "userns-shim pool check --fresh"}}
		}
	}
	return poolFindings(check)
}

// offlineCheck looks without a daemon. Leaks and the ranges of pods are known to it alone.
func offlineCheck(ctx context.Context, cfg config.Config) (admin.Check, error) {
	ledger := configuredLedger{
		own: ranges(cfg.IDPool.Extents), kubelet: ranges(cfg.IDPool.KubeletExtents.Extents),
	}
	if len(ledger.own) == 0 {
		ledger.own = idpool.DefaultExtents()
	}
	if cfg.IDPool.KubeletExtents.Auto {
		ledger.kubelet = kubeletExtents(ctx, hostSources())
	}
	scanner, err := foreign.New(foreign.Options{Ledger: ledger, Sources: foreignNode(cfg.State).Sources()})
	if err != nil {
		return admin.Check{}, err
	}
	report, err := scanner.Scan(ctx)
	if err != nil {
		return admin.Check{}, err
	}
	check := admin.Check{Scanned: report.Began, Findings: foreignFindings(*report)}
	check.Findings = append(check.Findings, extentFindings(ledger.kubelet, ledger.own, limitsKubelet(ledger.kubelet))...)
	return check, nil
}

// configuredLedger has the extents of the configuration, and nobody in them.
type configuredLedger struct{ own, kubelet []idpool.Range }

// Extents implements foreign.Ledger.
func (l configuredLedger) Extents(s idpool.Segment) []idpool.Range {
	switch s {
	case idpool.SegmentPool:
		return l.own
	case idpool.SegmentKubelet:
		return l.kubelet
	}
	return nil
}

// Holder implements foreign.Ledger.
func (configuredLedger) Holder(uint32) (idpool.Allocation, bool) { return idpool.Allocation{}, false }

// poolFindings are those of pool check. That nothing limits kubelet is told by the check of its subordinate ids.
func poolFindings(check admin.Check) []doctor.Finding {
	severity := map[string]doctor.Severity{
		admin.SeverityError: doctor.Error, admin.SeverityWarning: doctor.Warning, admin.SeverityInfo: doctor.Info,
	}
	var out []doctor.Finding
	for _, f := range check.Findings {
		if f.Code == codeUnlimited {
			continue
		}
		message := f.Code + ": " + f.Message
		if f.Length > 0 {
			message = fmt.Sprintf("%s (%d:%d): %s", f.Code, f.Start, f.Length, f.Message)
		}
		out = append(out, doctor.Finding{Check: "pool", Severity: severity[f.Severity], Message: message, Remedy: f.Remedy})
	}
	if len(out) == 0 {
		out = append(out, doctor.Finding{Check: "pool", Severity: doctor.OK, Message: "nobody else has ids of the pool, and its extents are clear of others"})
	}
	return out
}
