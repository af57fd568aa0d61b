// Command howdah keeps a PostgreSQL primary alive and sends every session to the right server.
package main

import (
	"os"

	"howdah/cmd"
)

func main() {
	os.Exit(cmd.Main(os.Args[1:], os.Environ(), cmd.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
