package postgres

import "howdah/consul/schema"

// ControlState is the state of the server as its control file has it ("Database cluster state").
type ControlState string

// The states of src/bin/pg_controldata/pg_controldata.c, dbState.
const (
	ControlStartingUp         ControlState = "starting up"
	ControlShutDown           ControlState = "shut down"
	ControlShutDownInRecovery ControlState = "shut down in recovery"
	ControlShuttingDown       ControlState = "shutting down"
	ControlInCrashRecovery    ControlState = "in crash recovery"
	ControlInArchiveRecovery  ControlState = "in archive recovery"
	ControlInProduction       ControlState = "in production"
)

// ControlData is the control file, as pg_controldata prints it.
type ControlData struct {
	Version        int // pg_control version number, for example 1300
	CatalogVersion int
	SystemID       string
	State          ControlState
	// CheckpointLSN is where the record of the latest checkpoint begins, RedoLSN where replay from it begins.
	CheckpointLSN, RedoLSN schema.LSN
	Timeline               schema.Timeline // of the latest checkpoint
	PrevTimeline           schema.Timeline
	// MinRecoveryLSN is how far a standby must replay before its files are consistent; zero on a primary.
	MinRecoveryLSN      schema.LSN
	MinRecoveryTimeline schema.Timeline
	BackupEndRequired   bool
	WALLevel            string
	WALLogHints         bool
	// The settings of the primary that a standby must not go below.
	MaxConnections, MaxWorkerProcesses, MaxWalSenders, MaxPreparedXacts, MaxLocksPerXact int
	WALSegmentBytes                                                                      int
	DataChecksums                                                                        int // version; 0 = off
}

// CleanShutdown reports whether the server was last stopped as a primary with a shutdown checkpoint.
func (c ControlData) CleanShutdown() bool { return c.State == ControlShutDown }
