//go:build !linux

package bench

import (
	"context"
	"time"
)

// carryFast is there on Linux only.
func (p *parties) carryFast(ctx context.Context, t *traffic, f func(carrier) error) error {
	return p.carryPlain(ctx, t, f)
}

// ownCPU is measured on Linux only.
func ownCPU() time.Duration { return 0 }
