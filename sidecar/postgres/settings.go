package postgres

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"howdah/consul/schema"
)

// setting is one line of howdah.conf. The value is unquoted.
type setting struct{ name, value string }

// settingContext says when a running server heeds a change, for the settings that howdah writes itself
// (pg_settings.context); any other is taken to need a restart unless the server says otherwise.
var settingContext = map[string]Change{
	"wal_keep_size": ChangeReload, "max_slot_wal_keep_size": ChangeReload, "hot_standby_feedback": ChangeReload,
	"wal_sender_timeout": ChangeReload, "wal_receiver_timeout": ChangeReload, "wal_receiver_status_interval": ChangeReload,
	"wal_retrieve_retry_interval": ChangeReload, "restart_after_crash": ChangeReload, "recovery_target_timeline": ChangeRestart,
	"primary_conninfo": ChangeReload, "primary_slot_name": ChangeReload, "synchronous_standby_names": ChangeReload,
	"idle_replication_slot_timeout": ChangeReload, "sync_replication_slots": ChangeReload,
}

// neverSet are settings, besides schema.RuledParameters, that would break what howdah promises.
var neverSet = map[string]string{
	"config_file":                   "howdah launch sets it",
	"recovery_target":               "a standby must follow to the end of the WAL",
	"recovery_target_name":          "a standby must follow to the end of the WAL",
	"recovery_target_time":          "a standby must follow to the end of the WAL",
	"recovery_target_xid":           "a standby must follow to the end of the WAL",
	"recovery_target_lsn":           "a standby must follow to the end of the WAL",
	"recovery_target_action":        "a standby must follow to the end of the WAL",
	"recovery_target_inclusive":     "a standby must follow to the end of the WAL",
	"idle_replication_slot_timeout": "slots on standbys are idle until a failover",
	"include":                       "a line of its own in PostgreSQL's file, no setting",
	"include_if_exists":             "a line of its own in PostgreSQL's file, no setting",
	"include_dir":                   "a line of its own in PostgreSQL's file, no setting",
}

// ruled says why a parameter may not be set by a cluster's configuration. PostgreSQL does not tell
// upper from lower case in names, so neither do we.
func ruled(name string) (why string, yes bool) {
	name = strings.ToLower(name)
	if why, yes = schema.RuledParameters[name]; yes {
		return why, true
	}
	why, yes = neverSet[name]
	return why, yes
}

// settingName is the form of a name: ID and QUALIFIED_ID of src/backend/utils/misc/guc-file.l.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

// CheckConfig returns every mistake in what cfg says about PostgreSQL: names and values that cannot be written,
// settings that howdah rules, lines that pg_hba.conf cannot hold. Whoever changes the cluster's configuration calls it first.
func CheckConfig(cfg schema.ClusterConfig) error {
	_, refused, err := parameters(cfg.Parameters)
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, name := range refused {
		why, _ := ruled(name)
		errs = append(errs, fmt.Errorf("parameters: %s cannot be set here: %s", name, why))
	}
	errs = append(errs, checkHBA(cfg.HBA))
	return errors.Join(errs...)
}

// parameters returns an operator's parameters with names in lower case, without those that are
// ruled, which it names.
func parameters(p map[string]string) (kept map[string]string, refused []string, err error) {
	kept = map[string]string{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p)) {
		low := strings.ToLower(name)
		if _, quoteErr := quoteSetting(p[name]); quoteErr != nil {
			errs = append(errs, fmt.Errorf("parameters: value of %q: %w", name, quoteErr))
			continue
		}
		if !settingName.MatchString(name) {
			errs = append(errs, fmt.Errorf("parameters: %q is no name of a setting; use letters, digits and underscores", name))
			continue
		}
		if _, twice := kept[low]; twice {
			errs = append(errs, fmt.Errorf("parameters: %s is given twice", low))
			continue
		}
		if _, yes := ruled(low); yes {
			if low != "wal_level" || strings.ToLower(p[name]) != "logical" {
				refused = append(refused, name)
				continue
			}
		}
		kept[low] = p[name]
	}
	return kept, refused, errors.Join(errs...)
}

// defaults are what howdah sets where the operator sets nothing else.
var defaults = []setting{
	{"max_wal_senders", "20"},
	{"max_replication_slots", "20"},
	// For a standby whose slot is lost or not made yet.
	{"wal_keep_size", "128MB"},
	// A member that is away must not fill the primary's disk; past this it has to be cloned again.
	{"max_slot_wal_keep_size", "4GB"},
	// Off, so that a long query on a standby cannot bloat the primary.
	{"hot_standby_feedback", "off"},
	// A receiver asks for a sign of life after half of its timeout. 5 s outlasts a busy primary's
	// stalls, and a standby that is cut off knows it soon after the lease (3 s) has run out.
	{"wal_receiver_timeout", "5s"},
	// pg_basebackup sits behind this one too, and its disk may stall for longer.
	{"wal_sender_timeout", "10s"},
	// A standby's position and its silence are evidence about the primary: keep them fresh.
	{"wal_receiver_status_interval", "1s"},
	// How long a standby waits before it tries an upstream again; PostgreSQL's 5 s would delay every failover.
	{"wal_retrieve_retry_interval", "500ms"},
	// Needed by pg_rewind where checksums are off; costs nothing where they are on.
	{"wal_log_hints", "on"},
}

// standbyFloor are the settings that a standby refuses to run with if they are lower than the primary's
// (CheckRequiredParameterValues, src/backend/access/transam/xlog.c), with PostgreSQL's defaults.
var standbyFloor = []struct {
	name    string
	normal  int
	primary func(ControlData) int
}{
	{"max_connections", 100, func(c ControlData) int { return c.MaxConnections }},
	{"max_worker_processes", 8, func(c ControlData) int { return c.MaxWorkerProcesses }},
	{"max_wal_senders", 10, func(c ControlData) int { return c.MaxWalSenders }},
	{"max_prepared_transactions", 0, func(c ControlData) int { return c.MaxPreparedXacts }},
	{"max_locks_per_transaction", 64, func(c ControlData) int { return c.MaxLocksPerXact }},
}

// facts are what the settings depend on besides what was asked for.
type facts struct {
	major   int
	control ControlData
}

// settings are all lines of howdah.conf in order: defaults, the operator's, then howdah's own, which
// win because they come last.
func (o Options) settings(s Settings, f facts) (all []setting, refused []string, err error) {
	feat, err := featuresOf(f.major)
	if err != nil {
		return nil, nil, err
	}
	own, refused, err := parameters(s.Config.Parameters)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range defaults {
		if _, set := own[d.name]; !set {
			own[d.name] = d.value
		}
	}
	walLevel := "replica"
	if v, set := own["wal_level"]; set {
		walLevel = strings.ToLower(v)
		delete(own, "wal_level")
	}
	if s.Role == schema.RoleStandby {
		raiseToPrimary(own, f.control)
	}
	if s.Role == schema.RoleStandby && feat.slotSync && s.Config.LogicalSlots() {
		// The second is what the first wants (ValidateSlotSyncParams, src/backend/replication/logical/slotsync.c).
		own["sync_replication_slots"], own["hot_standby_feedback"] = "on", "on"
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		all = append(all, setting{name, own[name]})
	}
	synchronous := s.SynchronousStandbyNames
	if s.Role == schema.RoleStandby && synchronous == "" && s.Config.Synchronous() {
		synchronous = nobodyYet
	}
	conninfo, slot := "", ""
	if s.Role == schema.RoleStandby && s.Upstream != nil {
		conninfo, slot = o.conninfo(*s.Upstream, feat), o.slot(*s.Upstream)
	}
	all = append(all,
		setting{"listen_addresses", o.ListenAddresses},
		setting{"port", strconv.Itoa(o.Port)},
		setting{"unix_socket_directories", quoteListItem(o.SocketDir)},
		setting{"hba_file", o.DataDir + "/pg_hba.conf"},
		setting{"cluster_name", o.Name},
		setting{"wal_level", walLevel},
		setting{"hot_standby", "on"},
		// The sidecar decides what follows a crash, not the postmaster.
		setting{"restart_after_crash", "off"},
		setting{"recovery_target_timeline", "latest"},
		setting{"synchronous_standby_names", synchronous},
		// A target left in a directory that was once restored would stop every standby there.
		setting{"recovery_target", ""},
		setting{"recovery_target_name", ""},
		setting{"recovery_target_time", ""},
		setting{"recovery_target_xid", ""},
		setting{"recovery_target_lsn", ""},
		setting{"primary_conninfo", conninfo},
		setting{"primary_slot_name", slot},
	)
	if feat.idleSlotTimeout {
		all = append(all, setting{"idle_replication_slot_timeout", "0"})
	}
	return all, refused, nil
}

// raiseToPrimary keeps a standby's settings from falling below the primary's, as its WAL recorded them:
// when they are lowered the primary must be restarted first.
func raiseToPrimary(own map[string]string, c ControlData) {
	for _, f := range standbyFloor {
		primary := f.primary(c)
		v, set := own[f.name]
		if !set && primary <= f.normal {
			continue
		}
		if n, err := strconv.Atoi(v); set && (err != nil || n >= primary) {
			continue
		}
		own[f.name] = strconv.Itoa(primary)
	}
}

// quoteListItem quotes an item of a setting that is a list (SplitDirectoriesString).
// One that needs no quotes gets none: howdah launch gives the same directory on the command line, and a setting
// that is written otherwise there would wait for a restart for ever.
func quoteListItem(v string) string {
	if !strings.ContainsAny(v, `,"`) && strings.TrimSpace(v) == v {
		return v
	}
	return `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
}

// conninfo is primary_conninfo. The password stands in the passfile, because whoever may read
// settings may read this one. A broken connection is noticed within 5 s even if no packet comes back.
func (o Options) conninfo(u Upstream, feat features) string {
	items := []setting{
		{"host", u.Host}, {"port", strconv.Itoa(u.Port)},
		{"user", ReplicationRole}, {"passfile", o.DataDir + ".pgpass"}, {"application_name", o.Name},
		{"connect_timeout", "2"}, {"keepalives", "1"}, {"keepalives_idle", "2"}, {"keepalives_interval", "1"},
		{"keepalives_count", "3"}, {"tcp_user_timeout", "5000"},
	}
	if u.SSLMode != "" {
		items = append(items, setting{"sslmode", u.SSLMode})
	}
	if feat.slotSync {
		items = append(items, setting{"dbname", "postgres"})
	}
	var words []string
	for _, i := range items {
		words = append(words, i.name+"="+quoteConninfo(i.value))
	}
	return strings.Join(words, " ")
}

const confHeader = `# Written by howdah; changes are lost. Set parameters in the cluster's configuration instead.
`

// renderSettings is the text of howdah.conf.
func renderSettings(all []setting) (string, error) {
	var b strings.Builder
	b.WriteString(confHeader)
	for _, s := range all {
		q, err := quoteSetting(s.value)
		if err != nil {
			return "", fmt.Errorf("setting %s: %w", s.name, err)
		}
		fmt.Fprintf(&b, "%s = %s\n", s.name, q)
	}
	return b.String(), nil
}

// readRendered reads what renderSettings wrote: each setting with its quoted value.
func readRendered(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if ok && !strings.HasPrefix(name, "#") {
			m[name] = value
		}
	}
	return m
}

// changedSettings names what differs between two texts of howdah.conf, sorted.
func changedSettings(before, after string) []string {
	a, b := readRendered(before), readRendered(after)
	names := map[string]bool{}
	for n := range a {
		names[n] = a[n] != b[n] || names[n]
	}
	for n := range b {
		_, had := a[n]
		names[n] = !had || a[n] != b[n]
	}
	var changed []string
	for n, yes := range names {
		if yes {
			changed = append(changed, n)
		}
	}
	slices.Sort(changed)
	return changed
}
