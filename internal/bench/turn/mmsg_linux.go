package turn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2): Go pads it as C does.
type mmsghdr struct {
	header unix.Msghdr
	length uint32 // received
}

// batch is datagrams for one call of recvmmsg or sendmmsg, in memory that is reused.
type batch struct {
	headers  []mmsghdr
	vectors  []unix.Iovec
	buffers  [][]byte
	controls [][]byte
}

// The kernel's time of arrival comes in a control message.
var controlSize = unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{})))

// newBatch is ready to receive n datagrams.
func newBatch(n int) *batch {
	b := &batch{
		headers:  make([]mmsghdr, n),
		vectors:  make([]unix.Iovec, n),
		buffers:  make([][]byte, n),
		controls: make([][]byte, n),
	}
	for i := range b.headers {
		b.buffers[i], b.controls[i] = make([]byte, largestFrame), make([]byte, controlSize)
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(largestFrame)
		h := &b.headers[i].header
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
	}
	return b
}

// receive reads datagrams of a socket, as many as the batch holds; none is no error.
func (b *batch) receive(fd int) (int, error) {
	for i := range b.headers {
		h := &b.headers[i].header
		h.Control = &b.controls[i][0]
		h.SetControllen(controlSize)
	}
	n, err := b.call(unix.SYS_RECVMMSG, fd, 0, len(b.headers))
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return n, err
}

// got is datagram i of those received, valid until the next call, and its time of arrival in ns
// since 1970.
func (b *batch) got(i int) (p []byte, at int64) {
	m := &b.headers[i]
	c := (*unix.Cmsghdr)(unsafe.Pointer(m.header.Control))
	if m.header.Controllen < unix.SizeofCmsghdr ||
		c.Level != unix.SOL_SOCKET || c.Type != unix.SCM_TIMESTAMPNS {
		at = time.Now().UnixNano()
	} else {
		at = (*unix.Timespec)(unsafe.Pointer(&b.controls[i][unix.CmsgLen(0)])).Nano()
	}
	return b.buffers[i][:m.length], at
}

// put makes p datagram i of the next send; to may be nil on a connected socket. Neither may change
// until then.
func (b *batch) put(i int, p []byte, to *sockaddr) {
	b.vectors[i].Base = &p[0]
	b.vectors[i].SetLen(len(p))
	if to != nil {
		h := &b.headers[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.raw)), to.length
	}
}

// send sends the first n datagrams and returns how many were sent. When the buffer of the socket is
// full, it sends fewer and returns EAGAIN.
func (b *batch) send(fd, n int) (sent int, err error) {
	for sent < n {
		k, err := b.call(unix.SYS_SENDMMSG, fd, sent, n)
		if err != nil {
			return sent, err
		}
		sent += k
	}
	return sent, nil
}

// call never blocks, so Go's scheduler need not know of it.
func (b *batch) call(number uintptr, fd, from, to int) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(
			number,
			uintptr(fd),
			uintptr(unsafe.Pointer(&b.headers[from])),
			uintptr(to-from),
			unix.MSG_DONTWAIT,
			0,
			0,
		)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// sockaddr is an address as the kernel reads it; that of IPv6 has room for that of IPv4.
type sockaddr struct {
	raw    unix.RawSockaddrInet6
	length uint32
}

func newSockaddr(a netip.AddrPort) (s sockaddr) {
	var port *uint16
	if a.Addr().Is4() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		four.Family, four.Addr, s.length = unix.AF_INET, a.Addr().As4(), unix.SizeofSockaddrInet4
		port = &four.Port
	} else {
		s.raw.Family, s.raw.Addr = unix.AF_INET6, a.Addr().As16()
		s.length = unix.SizeofSockaddrInet6
		port = &s.raw.Port
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(port))[:], a.Port())
	return s
}
