package schema_test

import (
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestCheckParameters(t *testing.T) {
	known := []schema.Parameter{
		{Name: "work_mem", Type: "integer", Unit: "kB", Context: "user", Min: "64", Max: "2147483647"},
		{Name: "shared_buffers", Type: "integer", Unit: "8kB", Context: "postmaster", Min: "16", Max: "1073741823"},
		{Name: "max_connections", Type: "integer", Context: "postmaster", Min: "1", Max: "262143"},
		{Name: "statement_timeout", Type: "integer", Unit: "ms", Context: "user", Min: "0", Max: "2147483647"},
		{Name: "random_page_cost", Type: "real", Context: "user", Min: "0", Max: "1.79769e+308"},
		{Name: "bgwriter_lru_multiplier", Type: "real", Context: "sighup", Min: "0", Max: "10"},
		{Name: "log_checkpoints", Type: "bool", Context: "sighup"},
		{Name: "synchronous_commit", Type: "enum", Context: "user", Values: []string{"local", "remote_write", "remote_apply", "on", "off"}},
		{Name: "log_min_messages", Type: "enum", Context: "superuser", Values: []string{"debug1", "warning", "error"}},
		{Name: "block_size", Type: "integer", Context: "internal", Min: "8192", Max: "8192"},
		{Name: "DateStyle", Type: "string", Context: "user"},
	}
	for _, c := range []struct{ name, value, want string }{
		{"work_mem", "64MB", ""},
		{"work_mem", "1.5 GB", ""},
		{"WORK_MEM", "0x1000", ""},
		{"work_mem", "63", "choose from 64 to 2147483647 in units of kB"},
		{"work_mem", "1kB", "choose from 64"},
		{"work_mem", "64 mb", "with one of B, kB, MB"},
		{"work_mem", "10s", "with one of B, kB, MB"},
		{"work_mem", "lots", "want a number"},
		{"work_mem", "", "want a number"},
		{"shared_buffers", "128kB", ""},
		{"shared_buffers", "127kB", ""}, // rounds to 16 blocks, as in PostgreSQL
		{"shared_buffers", "100kB", "choose from 16"},
		{"shared_buffers", "9TB", "choose from 16"},
		{"max_connections", "100", ""},
		{"max_connections", "0", "choose from 1 to 262143"},
		{"max_connections", "100kB", "without a unit"},
		{"statement_timeout", "30s", ""},
		{"statement_timeout", "1d", ""},
		{"statement_timeout", "100d", "choose from 0"},
		{"random_page_cost", "1.1", ""},
		{"random_page_cost", "1e3", ""},
		{"random_page_cost", "-1", "choose from 0"},
		{"bgwriter_lru_multiplier", "11", "choose from 0 to 10"},
		{"log_checkpoints", "TRUE", ""},
		{"log_checkpoints", "of", ""},
		{"log_checkpoints", "o", "want on or off"},
		{"log_checkpoints", "maybe", "want on or off"},
		{"synchronous_commit", "Remote_Apply", ""},
		{"synchronous_commit", "true", ""},
		{"synchronous_commit", "remote", "choose from local, remote_write"},
		{"log_min_messages", "panic", ""},
		{"block_size", "8192", "cannot be set at all"},
		{"datestyle", "anything", ""},
		{"wrok_mem", "1MB", "no such setting; did you mean work_mem?"},
		{"work_memm", "1MB", "did you mean work_mem?"},
		{"wal_is_great", "1", "PostgreSQL has no such setting"},
		{"pg_stat_statements.max", "anything", ""},
	} {
		errs := schema.CheckParameters(known, map[string]string{c.name: c.value}, []string{c.name})
		got := ""
		if len(errs) > 0 {
			got = errs[0].Error()
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s = %q: got %q, want %q", c.name, c.value, got, c.want)
		}
	}
}
