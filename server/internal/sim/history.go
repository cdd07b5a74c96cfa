package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkTime bounds the search for a linearization of one history, in real time. What is not decided by then is counted
// and not held against the run, which keeps the trace independent of the machine.
const checkTime = 2 * time.Second

// register is the state of one key in the model: its value, or absent when empty.
type register string

var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		var keys []string
		for _, op := range history {
			key := op.Input.(*operation).key
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() any { return register("") },
	Step: func(s, input, _ any) (bool, any) { return input.(*operation).step(s.(register)) },
}

// step is what the operation does to the key, and whether that agrees with the answer.
func (op *operation) step(r register) (bool, register) {
	switch op.kind {
	case opGet:
		return op.found == (r != "") && op.got == string(r), r
	case opPut:
		return true, register(op.value)
	case opDelete:
		return true, ""
	default:
		holds := string(r) == op.old
		if op.known && op.found != holds {
			return false, r
		}
		if holds {
			r = register(op.value)
		}
		return true, r
	}
}

// checkHistory searches for an order of all the clients' operations in which a single copy of each key would have
// answered the same, and which does not contradict the order in which the clients saw them happen.
func (s *sim) checkHistory() {
	var ops []porcupine.Operation
	for _, op := range s.history {
		if op.dropped || !op.known && !s.mayHaveHappened(op) {
			continue
		}
		ret := int64(op.ret)
		if !op.known {
			ret = math.MaxInt64
		}
		ops = append(ops, porcupine.Operation{ClientId: op.client, Input: op, Call: int64(op.call), Return: ret})
	}
	s.counts.Histories++
	s.counts.HistoryOps += len(ops)
	switch porcupine.CheckOperationsTimeout(registerModel, ops, checkTime) {
	case porcupine.Illegal:
		s.violate("history", "not linearizable:\n%s", s.worstKey(ops))
	case porcupine.Unknown:
		s.counts.Undecided++
	}
}

// mayHaveHappened leaves out operations without an answer that surely had no effect: reads, and writes of a value that
// is not in the log, which at this point can no longer come.
func (s *sim) mayHaveHappened(op *operation) bool {
	switch op.kind {
	case opGet:
		return false
	case opDelete:
		return true
	default:
		return s.truth.values[op.value] > 0
	}
}

// worstKey prints the operations on a key that has no linearization.
func (s *sim) worstKey(ops []porcupine.Operation) string {
	for _, part := range registerModel.Partition(ops) {
		if porcupine.CheckOperations(registerModel, part) {
			continue
		}
		slices.SortStableFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		var out strings.Builder
		for _, p := range part {
			op := p.Input.(*operation)
			fmt.Fprintf(&out, "%v..%v client %d %s\n", op.call, op.ret, op.client, op)
		}
		return out.String()
	}
	return "all keys pass alone"
}

func (op *operation) String() string {
	switch op.kind {
	case opGet:
		return fmt.Sprintf("get %s = %q", op.key, op.got)
	case opPut:
		return fmt.Sprintf("put %s %q known %v", op.key, op.value, op.known)
	case opDelete:
		return fmt.Sprintf("delete %s known %v", op.key, op.known)
	default:
		return fmt.Sprintf("swap %s %q to %q known %v, held %v", op.key, op.old, op.value, op.known, op.found)
	}
}
