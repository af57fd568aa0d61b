// Package options binds each option of a command once and reads it from three places.
//
// An option declared as "data-dir" is the flag --data-dir, the environment variable
// HOWDAH_DATA_DIR and the key data_dir of the YAML file that --config names. A flag
// goes before the environment, the environment before the file, the file before the default:
// the value that the bound variable has when it is declared.
//
// A Set collects every mistake before it says anything, each with where it was made, what
// was written and what is allowed. A name that nobody declared is a mistake: an option that is
// misspelt and then ignored looks like one that is obeyed.
//
// Secrets have no flag, because the arguments of a process are public on its machine, and no key,
// because configuration files are copied about: they come from files or from the environment.
package options
