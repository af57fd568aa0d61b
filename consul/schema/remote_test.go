package schema_test

import (
	"strings"
	"testing"

	"howdah/consul/schema"
)

func TestRemote(t *testing.T) {
	good := schema.Remote{Host: "db1", Port: 5432, Slot: "standby_cluster", SSLMode: "require"}
	for _, c := range []struct {
		what   string
		change func(*schema.Remote)
		says   string
	}{
		{"good", func(*schema.Remote) {}, ""},
		{"none", func(r *schema.Remote) { *r = schema.Remote{} }, ""},
		{"an address of IPv6", func(r *schema.Remote) { r.Host = "::1" }, ""},
		{"no slot, no sslmode", func(r *schema.Remote) { r.Slot, r.SSLMode = "", "" }, ""},
		{"no host", func(r *schema.Remote) { r.Host = "" }, `the host "" is not allowed`},
		{"two hosts", func(r *schema.Remote) { r.Host = "db1,db2" }, "give one name"},
		{"no port", func(r *schema.Remote) { r.Port = 0 }, "the port 0"},
		{"a slot with a dash", func(r *schema.Remote) { r.Slot = "a-b" }, "a slot's name"},
		{"a mode that needs files", func(r *schema.Remote) { r.SSLMode = "verify-full" }, "choose disable, allow"},
	} {
		config := schema.DefaultClusterConfig()
		config.Follow = good
		c.change(&config.Follow)
		err := config.Validate()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.says)
		}
	}
	if a := (schema.Remote{Host: "::1", Port: 5432}).Address(); a != "[::1]:5432" {
		t.Error(a)
	}
	if a := (schema.Remote{}).Address(); a != "" {
		t.Error(a)
	}
}
