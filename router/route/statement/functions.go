package statement

import "strings"

// FunctionsQuery lists the functions of a database for NewFunctions: schema, name and volatility ('i', 's' or 'v').
const FunctionsQuery = `SELECT DISTINCT n.nspname, p.proname, p.provolatile
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace`

// Function is a row of FunctionsQuery.
type Function struct {
	Schema, Name string
	Volatility   byte
}

// Functions are the functions of one database that are harmless on a standby. It does not change, so that
// sessions may share it; a nil *Functions knows none.
//
// Names alone count. A name is in the set if everything it could mean is harmless, in whatever schema it is and
// whatever the types of its arguments: so neither search_path nor overloading need be looked at. A function that its
// owner calls stable is believed to be stable.
type Functions struct{ names map[string]struct{} }

// NewFunctions makes the set from all functions of a database.
func NewFunctions(all []Function) *Functions {
	f := &Functions{names: map[string]struct{}{}}
	for _, name := range syntaxFunctions {
		f.names[name] = struct{}{}
	}
	for _, fn := range all {
		f.names[fn.Name] = struct{}{}
	}
	for _, fn := range all {
		if !fn.harmless() {
			delete(f.names, fn.Name)
		}
	}
	return f
}

// NewKeeping makes the set of those functions that change no setting of the session, whatever else they do: the server's own but for
// set_config and those that run a text, and those that are not volatile, in which PostgreSQL refuses SET. Of a function that is called in no
// other way, but by a trigger, nothing is known.
func NewKeeping(all []Function) *Functions {
	f := &Functions{names: map[string]struct{}{}}
	for _, name := range syntaxFunctions {
		f.names[name] = struct{}{}
	}
	for _, fn := range all {
		f.names[fn.Name] = struct{}{}
	}
	for _, fn := range all {
		why := deniedFunctions[fn.Name]
		if fn.Name == "set_config" || why == "runs a text as a query" || why == "runs code" || fn.Volatility == 'v' && fn.Schema != "pg_catalog" {
			delete(f.names, fn.Name)
		}
	}
	return f
}

// leavingNothing are functions of the server's own that are not harmless on a standby and yet leave nothing behind in the session that a client could
// miss on another server connection, but for what currval and lastval would tell.
var leavingNothing = []string{
	"current_query", "current_setting", "inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port", "mxid_age", "nextval",
	"pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared",
	"pg_current_snapshot", "pg_current_wal_lsn", "pg_current_xact_id", "pg_current_xact_id_if_assigned", "pg_is_in_recovery", "pg_notify", "pg_sleep",
	"random", "random_normal", "setval", "txid_current", "txid_current_if_assigned", "txid_current_snapshot", "txid_status", "version",
}

// NewParting makes the set of those functions after which a session can part with its server connection: the harmless ones, and leavingNothing where
// nobody has another function of that name.
func NewParting(all []Function) *Functions {
	f := NewFunctions(all)
	for _, name := range leavingNothing {
		f.names[name] = struct{}{}
	}
	for _, fn := range all {
		if fn.Schema != "pg_catalog" && !fn.harmless() {
			delete(f.names, fn.Name)
		}
	}
	return f
}

// Has reports whether every function of that name is harmless. The name is as pg_proc has it.
func (f *Functions) Has(name string) bool { return f.harmless([]byte(name), false) }

// Len is how many names are in the set.
func (f *Functions) Len() int { return len(f.names) }

// maxIdentifier is NAMEDATALEN - 1: PostgreSQL cuts off what is longer, and so makes another name of it.
const maxIdentifier = 63

// harmless looks a name up as it stands in a text; folds says that PostgreSQL makes it lower case first. A name that
// is not ASCII is not looked up: the case of such letters, and their encoding, are the server's.
func (f *Functions) harmless(name []byte, folds bool) bool {
	if f == nil || len(name) > maxIdentifier {
		return false
	}
	var lower [maxIdentifier]byte
	for i, c := range name {
		if c >= 0x80 {
			return false
		}
		if folds {
			c = fold(c)
		}
		lower[i] = c
	}
	_, known := f.names[string(lower[:len(name)])]
	return known
}

func (fn Function) harmless() bool {
	if _, denied := deniedFunctions[fn.Name]; denied {
		return false
	}
	for _, prefix := range deniedPrefixes {
		if strings.HasPrefix(fn.Name, prefix) && !allowedSystemFunctions[fn.Name] {
			return false
		}
	}
	if fn.Volatility == 'i' || fn.Volatility == 's' {
		return true
	}
	return fn.Schema == "pg_catalog" && harmlessVolatile[fn.Name]
}

// syntaxFunctions are constructs of the grammar of newer versions that look like calls; in older ones they are names
// like any other. A volatile function of that name takes them out.
var syntaxFunctions = []string{
	"json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query", "json_scalar",
	"json_serialize", "json_table", "json_value",
}

// harmlessVolatile are volatile only because each call gives another value, which no other call depends on. Not so
// random, which setseed makes depend on the session, and pg_sleep, which would sleep anew if a conflict with recovery
// broke it off.
var harmlessVolatile = map[string]bool{
	"clock_timestamp": true, "gen_random_uuid": true, "timeofday": true, "uuidv4": true, "uuidv7": true,
}

// deniedFunctions are immutable or stable by the catalog, or of extensions that say so in error, and yet have
// another effect or answer on a standby. The words say why. Those that are volatile anyway are named where they succeed on a
// standby, so that no catalog can let them through.
var deniedFunctions = map[string]string{
	"current_setting":            "may ask for transaction_read_only, in_hot_standby, or what each server's file sets",
	"version":                    "of the server asked, which may run another minor version",
	"inet_server_addr":           "the server's own address",
	"inet_server_port":           "the server's own port",
	"inet_client_addr":           "the router's address, as that server sees it",
	"inet_client_port":           "the port of the router's connection to that server",
	"txid_current":               "fails on a standby: it assigns a transaction ID",
	"txid_current_if_assigned":   "the transaction of the session on the primary",
	"txid_current_snapshot":      "a standby's snapshot is laid out in another way",
	"txid_status":                "of a transaction the client has just ended: ask where that was",
	"mxid_age":                   "counts from the server's own next multixact",
	"set_config":                 "succeeds, and sets the parameter on the standby only",
	"setseed":                    "succeeds, and seeds the standby's session only",
	"random":                     "depends on setseed",
	"random_normal":              "depends on setseed",
	"nextval":                    "fails on a standby",
	"setval":                     "fails on a standby",
	"currval":                    "state of the session on the primary",
	"lastval":                    "state of the session on the primary",
	"current_query":              "the text as that server got it",
	"dblink":                     "runs any statement elsewhere, as often as it is repeated",
	"dblink_exec":                "runs any statement elsewhere, as often as it is repeated",
	"query_to_xml":               "runs a text as a query",
	"query_to_xmlschema":         "runs a text as a query",
	"query_to_xml_and_xmlschema": "runs a text as a query",
	"cursor_to_xml":              "moves a cursor of the session",
	"cursor_to_xmlschema":        "reads a cursor of the session",
	"ts_stat":                    "runs a text as a query",
	"ts_rewrite":                 "runs a text as a query",
	"xpath_table":                "runs a text as a query",
	"crosstab":                   "runs a text as a query",
	"connectby":                  "runs a text as a query",
	"plpgsql_call_handler":       "runs code",
	"plpgsql_inline_handler":     "runs code",
	"loread":                     "moves a descriptor of the session",
	"lowrite":                    "writes",
	"treat":                      "a construct that calls a function named like a type",
	"merge_action":               "belongs to MERGE",
	"operator":                   "is taken for OPERATOR(...)",
}

// deniedPrefixes begin the names of the server's own functions, of large objects, and of connections elsewhere. Of them
// only allowedSystemFunctions are let through. So it needs no catalog to keep off pg_advisory_lock and kin,
// pg_try_advisory_lock, pg_notify, pg_terminate_backend, pg_cancel_backend, pg_reload_conf, pg_rotate_logfile, pg_promote,
// pg_switch_wal, pg_create_restore_point, pg_logical_emit_message, pg_export_snapshot, pg_stat_reset, pg_sleep, pg_read_file,
// pg_is_in_recovery (a client asks it to learn whether it has the primary: what the listener promises), pg_backend_pid (of the session
// on the primary), pg_current_wal_lsn, pg_current_xact_id, pg_current_snapshot, pg_last_wal_replay_lsn, pg_my_temp_schema,
// pg_postmaster_start_time, pg_stat_get_activity, and those of versions to come.
var deniedPrefixes = []string{"pg_", "lo_", "binary_upgrade_", "dblink_"}

var allowedSystemFunctions = allowed(`pg_char_to_encoding pg_client_encoding pg_collation_for pg_collation_is_visible
pg_column_is_updatable pg_column_size pg_conversion_is_visible pg_describe_object pg_encoding_max_length
pg_encoding_to_char pg_function_is_visible pg_get_catalog_foreign_keys pg_get_constraintdef pg_get_expr
pg_get_function_arg_default pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result
pg_get_function_sqlbody pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_object_address
pg_get_partition_constraintdef pg_get_partkeydef pg_get_publication_tables pg_get_replica_identity_index
pg_get_ruledef pg_get_serial_sequence pg_get_statisticsobjdef pg_get_statisticsobjdef_columns
pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object
pg_identify_object_as_address pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_lsn
pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible pg_options_to_table pg_partition_root
pg_relation_is_publishable pg_relation_is_updatable pg_sequence_parameters pg_size_bytes pg_size_pretty
pg_statistics_obj_is_visible pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_wal_lsn_diff`)

// replicatedRelations are the names with pg_ in front that mean the same on every server: catalogs that are tables,
// and views of nothing but those. All others are of the server that is asked, or not known.
var replicatedRelations = allowed(`pg_catalog pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute
pg_auth_members pg_authid pg_cast pg_class pg_collation pg_constraint pg_conversion pg_database pg_db_role_setting
pg_default_acl pg_depend pg_description pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper
pg_foreign_server pg_foreign_table pg_group pg_index pg_indexes pg_inherits pg_init_privs pg_language pg_largeobject
pg_largeobject_metadata pg_matviews pg_namespace pg_opclass pg_operator pg_opfamily pg_parameter_acl
pg_partitioned_table pg_policies pg_policy pg_proc pg_publication pg_publication_namespace pg_publication_rel
pg_publication_tables pg_range pg_rewrite pg_roles pg_rules pg_seclabel pg_seclabels pg_sequence pg_shadow
pg_shdepend pg_shdescription pg_shseclabel pg_statistic pg_statistic_ext pg_statistic_ext_data pg_stats pg_stats_ext
pg_stats_ext_exprs pg_tables pg_tablespace pg_transform pg_trigger pg_ts_config pg_ts_config_map pg_ts_dict
pg_ts_parser pg_ts_template pg_type pg_user pg_user_mapping pg_user_mappings pg_views
pg_global pg_default pg_lsn pg_node_tree pg_ndistinct pg_dependencies pg_mcv_list pg_snapshot pg_read_all_data
pg_write_all_data pg_monitor pg_default_acl pg_toast`)

func allowed(names string) map[string]bool {
	set := map[string]bool{}
	for _, name := range strings.Fields(names) {
		set[name] = true
	}
	return set
}

// differs reports whether a name that calls nothing may mean something else on each server. The columns of a sequence
// are among them: WAL has a sequence 32 values ahead, and so has a standby.
func differs(name []byte, folds bool) bool {
	if len(name) < 7 || len(name) > maxIdentifier {
		// A longer name is cut off, but still begins as it did.
		return len(name) >= 3 && beginsSystem(name, folds) && !replicated(name, folds)
	}
	switch first := name[0] | 0x20; first {
	case 'p':
		return beginsSystem(name, folds) && !replicated(name, folds)
	case 'l':
		return sameName(name, "last_value", folds) || sameName(name, "log_cnt", folds)
	case 'i':
		return sameName(name, "is_called", folds)
	}
	return false
}

func sameName(name []byte, want string, folds bool) bool {
	if folds {
		return equalFold(name, want)
	}
	return string(name) == want
}

func beginsSystem(name []byte, folds bool) bool { return sameName(name[:3], "pg_", folds) }

func replicated(name []byte, folds bool) bool {
	if len(name) > maxIdentifier {
		return false
	}
	var lower [maxIdentifier]byte
	for i, c := range name {
		if folds {
			c = fold(c)
		}
		lower[i] = c
	}
	return replicatedRelations[string(lower[:len(name)])]
}
