package router

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"howdah/router/route"
)

// Apply takes over these fields, and no others.
func TestApplyTakes(t *testing.T) {
	takes := []string{"Consistency", "FailoverWait", "LoginTimeout", "DialTimeout", "CancelTimeout", "DrainTimeout", "FarewellTimeout", "TCPUserTimeout",
		"MaxClients", "ReadOnlyFallback", "StatementRouting", "AdminUsers", "StatsUsers", "Rules", "IdentMap", "Limits"} // and the certificate's files, where there is TLS
	before := DefaultOptions()
	before.Cluster, before.Name = "c", "n"
	before.ConsolePassword = func() (string, error) { return "x", nil }
	r := &Router{o: before}
	r.changed.Store(&before)
	after := before
	v := reflect.ValueOf(&after).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case !f.CanSet() || slices.Contains([]string{"TLSCertFile", "TLSKeyFile", "TLSClientCAFile"}, v.Type().Field(i).Name):
		case f.Type() == reflect.TypeFor[route.Consistency]():
			f.SetString(string(route.Strict))
		case f.Type() == reflect.TypeFor[time.Duration]():
			f.SetInt(f.Int() + int64(time.Second))
		case f.Kind() == reflect.Int:
			f.SetInt(f.Int() + 1)
		case f.Kind() == reflect.Bool:
			f.SetBool(!f.Bool())
		case f.Kind() == reflect.String:
			f.SetString(f.String() + "x")
		case v.Type().Field(i).Name == "Rules":
			f.Set(reflect.ValueOf([]string{"host all all all reject"}))
		case v.Type().Field(i).Name == "IdentMap":
			f.Set(reflect.ValueOf([]string{"map name user"}))
		case v.Type().Field(i).Name == "Limits":
			f.Set(reflect.ValueOf([]string{"user all 5"}))
		case f.Kind() == reflect.Slice:
			f.Set(reflect.ValueOf([]string{"root"}))
		}
	}
	if err := r.Apply(after); err != nil {
		t.Fatal(err)
	}
	was, is := reflect.ValueOf(before), reflect.ValueOf(*r.live())
	for i := range was.NumField() {
		name := was.Type().Field(i).Name
		if k := was.Field(i).Kind(); k == reflect.Func || !was.Type().Field(i).IsExported() {
			continue
		}
		if changed := !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()); changed != slices.Contains(takes, name) {
			t.Errorf("%s: changed is %v", name, changed)
		}
	}
}
