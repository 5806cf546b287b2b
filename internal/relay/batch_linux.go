package relay

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is an address as the kernel wants it.
type sockaddr struct {
	raw  [unix.SizeofSockaddrInet6]byte
	size uint32
	// refusedSize is the smallest packet size of which the kernel did not take several at once for
	// this place; 0: it has taken all. The way there decides that, and so whoever is there: it must
	// not slow down what goes elsewhere. Any worker may use it.
	refusedSize uint32
}

// takesGSO tells whether several packets of a size may go there at once.
func (s *sockaddr) takesGSO(size int) bool {
	refused := atomic.LoadUint32(&s.refusedSize)
	return refused == 0 || size < int(refused)
}

func sockaddrOf(e endpoint) (s sockaddr) {
	if e.family() == v4 {
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET)
		binary.BigEndian.PutUint16(s.raw[2:], e.port)
		copy(s.raw[4:], e.ip[12:])
		s.size = unix.SizeofSockaddrInet4
		return s
	}
	binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET6)
	binary.BigEndian.PutUint16(s.raw[2:], e.port)
	copy(s.raw[8:], e.ip[:])
	binary.NativeEndian.PutUint32(s.raw[24:], e.scope)
	s.size = unix.SizeofSockaddrInet6
	return s
}

// readSockaddr is the reverse.
func readSockaddr(raw *[unix.SizeofSockaddrInet6]byte) (e endpoint) {
	e.port = binary.BigEndian.Uint16(raw[2:])
	if binary.NativeEndian.Uint16(raw[:]) == unix.AF_INET {
		copy(e.ip[:], mappedPrefix[:])
		copy(e.ip[12:], raw[4:8])
	} else {
		copy(e.ip[:], raw[8:24])
		if isLinkLocal(e.ip) {
			e.scope = binary.NativeEndian.Uint32(raw[24:])
		}
	}
	return e
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// Control messages: on receipt UDP_GRO (an int) and PKTINFO, on sending UDP_SEGMENT (a uint16) and
// PKTINFO.
const (
	receiveControl = 24 + 40
	sendControl    = 24 + 40
)

// receiver is a vector of messages to receive into. Each buffer has room for a ChannelData header
// in front.
type receiver struct {
	headers []mmsghdr
	iovs    []unix.Iovec
	from    [][unix.SizeofSockaddrInet6]byte
	control [][receiveControl]byte
	memory  []byte
	stride  int
	used    int // headers before it have been written by the kernel
}

func newReceiver(n int) *receiver {
	const page = 4096
	r := &receiver{
		headers: make(
			[]mmsghdr,
			n,
		), iovs: make([]unix.Iovec, n), from: make([][unix.SizeofSockaddrInet6]byte, n),
		control: make([][receiveControl]byte, n), stride: maxDatagram + 1 + page,
	}
	// Memory that no packet has reached yet is never touched, and so costs nothing.
	r.memory = make([]byte, n*r.stride)
	for i := range r.headers {
		r.iovs[i].Base = &r.memory[i*r.stride+channelHeader]
		r.iovs[i].SetLen(maxDatagram)
		h := &r.headers[i]
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = &r.from[i][0]
		h.Control = &r.control[i][0]
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(receiveControl)
	}
	return r
}

// receive fills messages from first on and returns how many there were; none is no error.
func (r *receiver) receive(fd, first int) int {
	for i := first; i < r.used; i++ {
		r.headers[i].Namelen = unix.SizeofSockaddrInet6
		r.headers[i].SetControllen(receiveControl)
	}
	r.used = first
	n, _, errno := unix.RawSyscall6(
		unix.SYS_RECVMMSG,
		uintptr(fd),
		uintptr(unsafe.Pointer(&r.headers[first])),
		uintptr(len(r.headers)-first),
		unix.MSG_DONTWAIT,
		0,
		0,
	)
	if errno != 0 {
		return 0
	}
	r.used = first + int(n)
	return int(n)
}

// headroom is message i with the room in front of it.
func (r *receiver) headroom(i int) []byte {
	at := i * r.stride
	return r.memory[at : at+channelHeader+int(r.headers[i].n)]
}

// complete tells that message i was not cut short.
func (r *receiver) complete(i int) bool { return r.headers[i].Flags&unix.MSG_TRUNC == 0 }

// segmentSize is the size of the packets that message i consists of, when the kernel has merged
// several.
func (r *receiver) segmentSize(i int) int {
	if b := r.controlMessage(i, unix.SOL_UDP, unix.UDP_GRO); len(b) >= 4 {
		return int(binary.NativeEndian.Uint32(b))
	}
	return 0
}

// destination is the address that message i was sent to; ok is false when the socket was not told
// to say it.
func (r *receiver) destination(i int, to *endpoint) (ok bool) {
	if b := r.controlMessage(i, unix.SOL_IP, unix.IP_PKTINFO); len(b) >= unix.SizeofInet4Pktinfo {
		copy(to.ip[:], mappedPrefix[:])
		copy(to.ip[12:], b[8:12])
		to.scope = 0
		return true
	}
	if b := r.controlMessage(i, unix.SOL_IPV6, unix.IPV6_PKTINFO); len(
		b,
	) >= unix.SizeofInet6Pktinfo {
		copy(to.ip[:], b[:16])
		if to.scope = 0; isLinkLocal(to.ip) {
			to.scope = binary.NativeEndian.Uint32(b[16:])
		}
		return true
	}
	return false
}

func (r *receiver) controlMessage(i int, level, kind int32) []byte {
	b := r.control[i][:min(int(r.headers[i].Controllen), receiveControl)]
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(b) {
			return nil
		}
		if h.Level == level && h.Type == kind {
			return b[unix.CmsgLen(0):size]
		}
		b = b[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(b)):]
	}
	return nil
}

// Bounds of what a sender gathers, and of one send of several packets: the kernel takes 64 KB and
// (before 6.9) 64 segments.
const (
	sendPackets     = 1024
	sendBatches     = 256
	maxBatchBytes   = 63000
	maxBatchPackets = 64
)

// gsoBatch is packets of one size, the last of which may be shorter, from one socket to one
// destination.
type gsoBatch struct {
	fd          int
	to          *sockaddr
	source      *endpoint // nil: the socket has one address
	size        int
	total       int
	packets     int
	first, last int32
	short       bool
	payload     int
	// Counted before the run is sent, taken back when it is not.
	down, up *allocation
}

// outgoing is a packet of a run: bytes, and a header in front of them that stands elsewhere.
type outgoing struct {
	bytes  []byte
	head   [channelHeader]byte
	headed bool
	next   int32
}

// openBatch remembers the last run of one source of packets, so that the next ones join it.
type openBatch struct {
	epoch uint64
	index int32
}

// sender gathers packets into runs until it is flushed.
type sender struct {
	worker  *worker
	server  *Server
	noGSO   bool
	epoch   uint64
	batches []gsoBatch
	packets []outgoing
	headers []mmsghdr
	iovs    []unix.Iovec
	control [][sendControl]byte

	// Counted for the worker, not yet added to its totals.
	up, down Traffic
}

func newSender(w *worker) *sender {
	return &sender{
		worker:  w,
		server:  w.server,
		epoch:   1,
		batches: make([]gsoBatch, 0, sendBatches),
		packets: make([]outgoing, 0, sendPackets),
		headers: make(
			[]mmsghdr,
			sendBatches,
		), iovs: make([]unix.Iovec, 2*sendPackets), control: make([][sendControl]byte, sendBatches),
	}
}

// add gathers one packet of r.size bytes, of which payload are what is counted. open is where the
// last run of this source is known; nil: nothing joins this packet.
func (t *sender) add(r gsoBatch, bytes []byte, head *[channelHeader]byte, open *openBatch) {
	if len(t.packets) == sendPackets {
		t.flush()
	}
	i := int32(len(t.packets))
	t.packets = t.packets[:i+1]
	p := &t.packets[i]
	p.bytes, p.headed, p.next = bytes, head != nil, -1
	if head != nil {
		p.head = *head
	}
	if open != nil && open.epoch == t.epoch {
		last := &t.batches[open.index]
		// An empty packet would vanish among others.
		if last.to == r.to && !last.short && r.size <= last.size && r.size > 0 &&
			last.packets < maxBatchPackets &&
			last.total+r.size <= maxBatchBytes && !t.noGSO &&
			r.to.takesGSO(last.size) &&
			last.up == r.up {
			t.packets[last.last].next = i
			last.last = i
			last.packets++
			last.total += r.size
			last.payload += r.payload
			last.short = r.size < last.size
			return
		}
	}
	if len(t.batches) == sendBatches {
		// The packet just placed must not go with the others.
		t.packets = t.packets[:i]
		t.flush()
		t.packets = t.packets[:1]
		t.packets[0] = *p
		i = 0
	}
	r.first, r.last, r.packets, r.total = i, i, 1, r.size
	t.batches = append(t.batches, r)
	if open != nil {
		open.epoch, open.index = t.epoch, int32(len(t.batches)-1)
	}
}

// flush counts and sends everything.
func (t *sender) flush() {
	if len(t.batches) == 0 {
		return
	}
	iov := 0
	for i := range t.batches {
		r := &t.batches[i]
		t.count(r, 1)
		first := iov
		for p := r.first; p >= 0; p = t.packets[p].next {
			out := &t.packets[p]
			if out.headed {
				t.iovs[iov].Base = &out.head[0]
				t.iovs[iov].SetLen(channelHeader)
				iov++
			}
			if len(out.bytes) > 0 {
				t.iovs[iov].Base = &out.bytes[0]
			}
			t.iovs[iov].SetLen(len(out.bytes))
			iov++
		}
		t.prepare(i, first, iov-first)
	}
	t.countTotals()
	// A send is for one socket: what follows each other on one goes together.
	for first := 0; first < len(t.batches); {
		end := first + 1
		for end < len(t.batches) && t.batches[end].fd == t.batches[first].fd {
			end++
		}
		t.send(first, end)
		first = end
	}
	t.epoch++
	t.batches, t.packets = t.batches[:0], t.packets[:0]
}

func (t *sender) count(r *gsoBatch, sign int) {
	n, payload := sign*r.packets, sign*r.payload
	if r.down != nil {
		r.down.down.add(n, payload)
		t.down.Packets += uint64(n)
		t.down.Bytes += uint64(payload)
	}
	if r.up != nil {
		r.up.up.add(n, payload)
		t.up.Packets += uint64(n)
		t.up.Bytes += uint64(payload)
	}
}

// countTotals adds what count has gathered to the worker's totals: four atomic additions for each
// flush, and none to another worker's memory.
func (t *sender) countTotals() {
	if t.down.Packets != 0 {
		t.worker.down.add(int(t.down.Packets), int(t.down.Bytes))
	}
	if t.up.Packets != 0 {
		t.worker.up.add(int(t.up.Packets), int(t.up.Bytes))
	}
	t.down, t.up = Traffic{}, Traffic{}
}

// prepare fills the header of a run.
func (t *sender) prepare(i, firstIov, iovs int) {
	r, h := &t.batches[i], &t.headers[i]
	h.Name, h.Namelen = &r.to.raw[0], r.to.size
	h.Iov = &t.iovs[firstIov]
	h.SetIovlen(iovs)
	size := 0
	control := &t.control[i]
	if r.packets > 1 {
		size += putControl(control[size:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(r.size))
		t.server.stats.gsoPackets.Add(uint64(r.packets))
	}
	size += putSource(control[size:], r.source)
	h.Control = nil
	if size > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(size)
	h.Flags = 0
}

// putSource says which of our addresses a packet leaves from.
func putSource(b []byte, source *endpoint) int {
	switch {
	case source == nil:
		return 0
	case source.family() == v4:
		n := putControl(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(b[unix.CmsgLen(0)+4:], source.ip[12:])
		return n
	}
	n := putControl(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(b[unix.CmsgLen(0):], source.ip[:])
	// A link-local address is one of that interface.
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(0)+16:], source.scope)
	return n
}

func putControl(b []byte, level, kind int32, size int) int {
	n := unix.CmsgSpace(size)
	clear(b[:n])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return n
}

// send sends runs of one socket. One that the kernel refuses is sent packet by packet if it can be,
// or is lost.
func (t *sender) send(first, end int) {
	for first < end {
		if r := &t.batches[first]; end-first == 1 && r.packets == 1 && r.source == nil &&
			!t.packets[r.first].headed &&
			r.size > 0 {
			// The most frequent send by far when every packet is for another socket: it needs no
			// vectors.
			b := t.packets[r.first].bytes
			_, _, errno := unix.RawSyscall6(
				unix.SYS_SENDTO,
				uintptr(r.fd),
				uintptr(unsafe.Pointer(&b[0])),
				uintptr(len(b)),
				0,
				uintptr(unsafe.Pointer(&r.to.raw[0])),
				uintptr(r.to.size),
			)
			switch errno {
			case unix.EINTR:
				continue
			case 0:
			default:
				t.countLost(r, 1, r.payload)
			}
			return
		}
		n, _, errno := unix.RawSyscall6(
			unix.SYS_SENDMMSG,
			uintptr(t.batches[first].fd),
			uintptr(unsafe.Pointer(&t.headers[first])),
			uintptr(end-first),
			0,
			0,
			0,
		)
		switch {
		case errno == 0:
			first += int(n)
		case errno == unix.EINTR:
		default:
			t.sendSingly(first, errno)
			first++
		}
	}
}

// sendSingly sends the packets of a run one by one. A system that cannot send several at once is
// not asked again, nor is a place to which packets of this size do not go.
func (t *sender) sendSingly(i int, errno unix.Errno) {
	r := &t.batches[i]
	if r.packets == 1 {
		t.countLost(r, 1, r.payload)
		return
	}
	t.server.stats.gsoPackets.Add(^uint64(r.packets - 1))
	switch errno {
	case unix.EINVAL, unix.EMSGSIZE:
		if r.to.takesGSO(r.size) {
			atomic.StoreUint32(&r.to.refusedSize, uint32(r.size))
		}
	case unix.EIO, unix.EOPNOTSUPP, unix.ENOPROTOOPT:
		t.noGSO = true
		t.server.gsoFailed(errno)
	default: // the socket's buffer is full, or there is no way to that place
		t.countLost(r, r.packets, r.payload)
		return
	}
	h := &t.headers[i]
	iov := h.Iov
	size := putSource(t.control[i][:], r.source)
	h.Control = nil
	if size > 0 {
		h.Control = &t.control[i][0]
	}
	h.SetControllen(size)
	header := (r.total - r.payload) / r.packets
	for p := r.first; p >= 0; p = t.packets[p].next {
		n, size := 1, len(t.packets[p].bytes)
		if t.packets[p].headed {
			n, size = 2, size+channelHeader
		}
		h.Iov = iov
		h.SetIovlen(n)
		iov = (*unix.Iovec)(unsafe.Add(unsafe.Pointer(iov), uintptr(n)*unsafe.Sizeof(*iov)))
		for {
			_, _, errno := unix.RawSyscall(
				unix.SYS_SENDMSG,
				uintptr(r.fd),
				uintptr(unsafe.Pointer(&h.Msghdr)),
				0,
			)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				t.countLost(r, 1, size-header)
			}
			break
		}
	}
}

// countLost takes back what was counted and counts it as lost.
func (t *sender) countLost(r *gsoBatch, packets, payload int) {
	whose := r.up
	if r.down != nil {
		r.down.down.add(-packets, -payload)
		t.worker.down.add(-packets, -payload)
		whose = r.down
	}
	if r.up != nil {
		r.up.up.add(-packets, -payload)
		t.worker.up.add(-packets, -payload)
	}
	for range packets {
		whose.drop(reasonUnsent)
	}
}
