//go:build !linux

package turn

import "context"

// carryFast is there on Linux only.
func (p *parties) carryFast(ctx context.Context, t *traffic, f func(carrier) error) error {
	return p.carryPlain(ctx, t, f)
}
