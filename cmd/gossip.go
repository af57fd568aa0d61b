package cmd

import (
	"go.uber.org/zap"

	"howdah/detector"
)

// memberGossip is the detector as the sidecar needs it: what cannot be joined is logged and not the loop's concern.
type memberGossip struct {
	*detector.Detector
	log *zap.Logger
}

// Join hides the detector's.
func (g memberGossip) Join(addresses []string) {
	if err := g.Detector.Join(addresses); err != nil {
		g.log.Warn("a member's gossip address in consul cannot be used", zap.Error(err))
	}
}
