package postgres

import "howdah/consul/schema"

// TimelineSwitch says that Timeline was left at LSN for the next one.
type TimelineSwitch struct {
	Timeline schema.Timeline
	LSN      schema.LSN
}

// History is how a timeline came to be: Current, and the ones it descends from, oldest first.
type History struct {
	Current  schema.Timeline
	Switches []TimelineSwitch
}
