package schema

// Doc is one document of the KV store with what is needed to change it by check-and-set.
type Doc[T any] struct {
	// Exists is false where the key is missing; Value is then T's zero value and Index zero.
	Exists bool
	// Index is the key's ModifyIndex, to be given back with a change.
	Index uint64
	Value T
}

// ClusterState is everything under howdah/<cluster>/, read in one answer and therefore of one moment.
type ClusterState struct {
	// Index is Consul's index of the answer.
	Index uint64
	// AskedAt is this machine's clock before the request was sent, AnsweredAt when the answer had come.
	AskedAt, AnsweredAt Instant
	Leader              LockView
	Initialize          Doc[Initialize]
	Config              Doc[ClusterConfig]
	History             Doc[History]
	Request             Doc[Request]
	// Members are sorted by name.
	Members []Doc[Member]
}
