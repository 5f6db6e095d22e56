package nri

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"
)

// logger carries the library's lines into the log.
type logger struct{ to klog.Logger }

// levelDebug is for what the library says of each message.
const levelDebug = 5

func (l logger) Debugf(_ context.Context, format string, args ...any) {
	l.to.V(levelDebug).Info("NRI", "message", fmt.Sprintf(format, args...))
}

func (l logger) Infof(_ context.Context, format string, args ...any) {
	l.to.V(2).Info("NRI", "message", fmt.Sprintf(format, args...))
}

func (l logger) Warnf(_ context.Context, format string, args ...any) {
	l.to.Info("NRI warning", "message", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(_ context.Context, format string, args ...any) {
	l.to.Error(nil, "NRI", "message", fmt.Sprintf(format, args...))
}
