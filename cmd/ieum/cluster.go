package main

import (
	"os"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
)

// clusterFlags connect a server to others.
type clusterFlags struct {
	Node              string        `help:"Name of this node, unique in the cluster (default: the host name)." placeholder:"NAME"`
	ClusterListen     string        `help:"Address at which other nodes reach this one; the next port is used too (default: none, this node stands alone)." placeholder:"HOST:PORT"`
	ClusterPeer       []string      `help:"Another node; a name with several addresses stands for all of them, also for this node; repeatable (default: none)." placeholder:"HOST:PORT"`
	ClusterExpect     int           `help:"Nodes that a new cluster starts with, 3 or more if one may die; 1 for a node that others join later (default: none)." placeholder:"N"`
	ClusterNATS       []string      `name:"cluster-nats" help:"NATS server with JetStream at which the nodes meet, instead of the other three; repeatable (default: none)." placeholder:"URL"`
	ClusterSecretFile string        `help:"File with the secret that all nodes share, at least 32 bytes; or IEUM_CLUSTER_SECRET (default: none)." placeholder:"FILE"`
	ClusterCert       string        `help:"Certificate of this node, PEM, with the DNS name ieum-node, instead of a secret (default: none)." placeholder:"FILE"`
	ClusterKey        string        `help:"Private key of --cluster-cert, PEM (default: none)." placeholder:"FILE"`
	ClusterCA         string        `name:"cluster-ca" help:"CA of the certificates of all nodes, PEM (default: none)." placeholder:"FILE"`
	DrainTimeout      time.Duration `help:"How long a stopping server waits for clients to close their connections, or a node of a cluster for clients and calls to move to other nodes (default 3s; in a cluster 20s)." placeholder:"TIME"`
}

func (f clusterFlags) settings() config.ClusterSettings {
	return config.ClusterSettings{
		Node:         f.Node,
		Listen:       f.ClusterListen,
		Peers:        f.ClusterPeer,
		Expect:       f.ClusterExpect,
		NATS:         f.ClusterNATS,
		Secret:       os.Getenv("IEUM_CLUSTER_SECRET"),
		SecretFile:   f.ClusterSecretFile,
		Cert:         f.ClusterCert,
		Key:          f.ClusterKey,
		CA:           f.ClusterCA,
		DrainTimeout: f.DrainTimeout,
	}
}
