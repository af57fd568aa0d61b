package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below the range from which the kernel takes those of outgoing connections
// (net.ipv4.ip_local_port_range begins at 32768), so that they are still free at a restart.
const (
	lowestPort  = 15000
	highestPort = 31000
)

// loopback is where everything listens.
const loopback = "127.0.0.1"

// picker hands out addresses that are free for TCP and UDP, none twice.
type picker struct{ taken map[string]bool }

// free returns want where that is free, else an address with a free port.
func (p *picker) free(want string) (string, error) {
	if want != "" && p.take(want) {
		return want, nil
	}
	for range 1000 {
		a := net.JoinHostPort(loopback, strconv.Itoa(lowestPort+rand.IntN(highestPort-lowestPort)))
		if p.take(a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("no free port from %d to %d on %s", lowestPort, highestPort, loopback)
}

func (p *picker) take(address string) bool {
	if p.taken[address] || Free(address) != nil {
		return false
	}
	p.taken[address] = true
	return true
}

// Free returns the error that listening on address (host:port) gives now, TCP and UDP; nil if both are free.
func Free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Close(), u.Close())
}

// FreeAddresses returns n addresses on loopback that are free for TCP and UDP, with ports that the kernel does not give
// to outgoing connections.
func FreeAddresses(n int) ([]string, error) {
	p := &picker{taken: map[string]bool{}}
	var found []string
	for range n {
		a, err := p.free("")
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, nil
}
