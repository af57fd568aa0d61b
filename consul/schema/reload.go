package schema

// ReloadReport is what came of a reload of one member: of its options that may change while it runs, and of its PostgreSQL's
// configuration files.
type ReloadReport struct {
	// Options says what is wrong with the sidecar's own options, which then stay as they were; empty if they were read again.
	Options string `json:"options,omitempty"`
	// Postgres says why PostgreSQL was not told, or could not be asked what it thinks; empty if it has read its files.
	Postgres string `json:"postgres,omitempty"`
	// Mistakes are what PostgreSQL finds wrong in its files.
	Mistakes []FileMistake `json:"mistakes,omitempty"`
	// PendingRestart names the settings whose new value waits for a restart, sorted.
	PendingRestart []string `json:"pending_restart,omitempty"`
}

// FileMistake is a line that PostgreSQL does not heed (pg_file_settings, pg_hba_file_rules, pg_ident_file_mappings).
type FileMistake struct {
	File string `json:"file"`
	// Line counts from 1; 0 if the whole file cannot be read.
	Line int `json:"line,omitempty"`
	// Setting is the parameter that the line is about; empty in pg_hba.conf and pg_ident.conf.
	Setting string `json:"setting,omitempty"`
	Error   string `json:"error"`
}

// Failed reports a reload after which something is not as its files say, a pending restart not counted.
func (r ReloadReport) Failed() bool {
	return r.Options != "" || r.Postgres != "" || len(r.Mistakes) > 0
}
