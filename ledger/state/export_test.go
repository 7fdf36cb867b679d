package state

// Add puts an entry in.
func (s *Sum) Add(k Key, e *Entry) { s.add(k, e) }
