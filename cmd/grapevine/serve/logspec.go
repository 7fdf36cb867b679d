package serve

import (
	"encoding/json"
	"net/http"
)

// maxSpec bounds a request to change the logging specification, in bytes.
const maxSpec = 64 << 10

// get answers with the logging specification, as Fabric's /logspec does.
func (l *Log) get(w http.ResponseWriter, _ *http.Request) {
	l.answer(w, http.StatusOK, map[string]string{"spec": l.Spec()})
}

// put changes it: 204, or 400 with what is wrong.
func (l *Log) put(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Spec *string `json:"spec"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSpec)).Decode(&body)
	switch {
	case err != nil:
		l.answer(w, http.StatusBadRequest, map[string]string{"error": "the body is not {\"spec\": \"...\"}: " + err.Error()})
		return
	case body.Spec == nil:
		l.answer(w, http.StatusBadRequest, map[string]string{"error": "the body has no spec"})
		return
	}
	if err := l.Set(*body.Spec); err != nil {
		l.answer(w, http.StatusBadRequest, map[string]string{"error": "invalid logging specification '" + *body.Spec + "': " + err.Error()})
		return
	}
	l.Info("logging specification changed", "spec", *body.Spec)
	w.WriteHeader(http.StatusNoContent)
}

func (l *Log) answer(w http.ResponseWriter, status int, v map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		l.Debug("answering a request for the logging specification", "err", err)
	}
}
