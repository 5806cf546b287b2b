//go:build !linux

package turn

import "context"

// withMmsgIO is there on Linux only.
func (p *parties) withMmsgIO(ctx context.Context, t *traffic, f func(packetIO) error) error {
	return p.withNetIO(ctx, t, f)
}
