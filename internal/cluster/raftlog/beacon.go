package raftlog

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// beacon is what each node says about itself several times a second.
type beacon struct {
	Node        string `json:"node"`
	Process     uint64 `json:"process"`
	Address     string `json:"address"` // of raft
	Program     string `json:"program"` // version
	Fingerprint string `json:"fingerprint"`
	Time        int64  `json:"time"` // of day, in milliseconds since 1970

	Expect  int      `json:"expect"`
	Sees    []string `json:"sees"`    // names of nodes, with its own
	Cluster uint64   `json:"cluster"` // 0: none yet
	Lease   bool     `json:"lease"`   // it holds one
	Voters  int      `json:"voters"`
	Last    uint64   `json:"last"` // index of the log
	Applied uint64   `json:"applied"`
	Leaving bool     `json:"leaving"`
}

// maxBeacon bounds what is read of a foreign beacon.
const maxBeacon = 16 << 10

func parseBeacon(b []byte) (beacon, bool) {
	var h beacon
	if len(b) > maxBeacon || json.Unmarshal(b, &h) != nil {
		return h, false
	}
	return h, h.Node != "" && h.Process != 0 && len(h.Node) <= 63
}

func (h *beacon) id() raft.ServerID { return serverID(h.Node, h.Process) }

// heard is a node that sent a beacon.
type heard struct {
	beacon
	at time.Duration // of lease.Now
}

// fresh is how long a beacon counts.
const fresh = time.Second

// mayFound tells whether this node is to found a cluster: enough nodes are there, all see the same
// nodes, none is in a cluster, and this one is the first by name.
func mayFound(self *beacon, others []heard) (voters []beacon, ok bool) {
	all := []beacon{*self}
	for _, o := range others {
		all = append(all, o.beacon)
	}
	slices.SortFunc(all, func(a, b beacon) int { return strings.Compare(a.Node, b.Node) })
	if len(all) < self.Expect || all[0].Process != self.Process {
		return nil, false
	}
	for i := range all {
		if all[i].Cluster != 0 || all[i].Leaving || !slices.Equal(all[i].Sees, all[0].Sees) ||
			len(all[i].Sees) != len(all) {
			return nil, false
		}
	}
	return all, true
}

// mustAbandon tells whether this node's cluster gives way to another one, which it sees.
func mustAbandon(self *beacon, others []heard) bool {
	if self.Cluster == 0 {
		return false
	}
	for _, o := range others {
		if o.Cluster == 0 || o.Cluster == self.Cluster || !o.Lease {
			continue
		}
		if !self.Lease || o.Voters > self.Voters ||
			o.Voters == self.Voters && o.Cluster < self.Cluster {
			return true
		}
	}
	return false
}

// mayRecover tells whether this node is to go on alone with what it knows: so many nodes of its
// configuration have started again, without memory, that the rest can never be a majority, and of
// the rest, all of which it sees, it knows most.
func mayRecover(self *beacon, servers []raft.Server, others []heard) bool {
	voters, rest := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == self.id() {
			rest++
			continue
		}
		name := nameOf(s.ID)
		seen, again := false, false
		for _, o := range others {
			switch {
			case o.id() == s.ID:
				seen = true
				if o.Last > self.Last || o.Last == self.Last && o.Node < self.Node {
					return false
				}
			case o.Node == name:
				again = true
			}
		}
		switch {
		case seen:
			rest++
		case !again:
			return false // it may be alive elsewhere
		}
	}
	for _, o := range others {
		if o.Lease {
			return false
		}
	}
	return voters > 0 && rest > 0 && rest < voters/2+1
}

// sees are the names of all nodes that are there, in order.
func sees(self string, others []heard) []string {
	names := []string{self}
	for _, o := range others {
		names = append(names, o.Node)
	}
	slices.Sort(names)
	return names
}
