package shard

// Field is what a Compare looks at.
type Field uint8

// The fields that can be compared.
const (
	Create Field = iota // the revision at which the key came into being
	Mod                 // the revision of its last change
	Value               // false when there is no such key
)

// Compare is a condition. The zero relation is equality.
type Compare struct {
	Key, End string // all keys up to End, if that is set
	Field    Field
	Less     bool // instead of equal
	Rev      int64
	Value    []byte
}

// OpKind says what an Op does.
type OpKind uint8

// The operations of a transaction.
const (
	Get OpKind = iota
	Put
	Delete
	Nest // a transaction inside, judged on the state before the whole
)

// Op is one operation.
type Op struct {
	Kind     OpKind
	Key, End string // of Get and Delete: all keys up to End, if that is set
	Value    []byte
	Lease    int64
	Limit    int64 // of Get; 0 for all
	Rev      int64 // of Get: at that revision; 0 for now
	Txn      *Txn
}

// Txn is a transaction. Sent twice, it must do no harm: an answer that is lost
// is got by sending it again.
type Txn struct {
	If         []Compare
	Then, Else []Op
}

// Bytes is about how much the transaction weighs on its way.
func (t *Txn) Bytes() (n int) {
	for _, c := range t.If {
		n += 32 + len(c.Key) + len(c.End) + len(c.Value)
	}
	for _, ops := range [][]Op{t.Then, t.Else} {
		for _, op := range ops {
			n += 32 + len(op.Key) + len(op.End) + len(op.Value)
			if op.Txn != nil {
				n += op.Txn.Bytes()
			}
		}
	}
	return n
}

// KV is a key as it was read.
type KV struct {
	Key         string
	Value       []byte
	Create, Mod int64
}

// Result is the answer of one operation.
type Result struct {
	KVs []KV    // of Get
	Txn *Answer // of Nest
}

// Answer is the answer of a transaction.
type Answer struct {
	Revision  int64
	Compacted bool // a Get at a revision could not be answered; there is nothing else
	Succeeded bool
	Results   []Result
}

func createIs(key string, rev int64) Compare { return Compare{Key: key, Field: Create, Rev: rev} }
func modIs(key string, rev int64) Compare    { return Compare{Key: key, Field: Mod, Rev: rev} }
func missing(key string) Compare             { return createIs(key, 0) }

func get(key string) Op               { return Op{Kind: Get, Key: key} }
func getAll(prefix string) Op         { return Op{Kind: Get, Key: prefix, End: PrefixEnd(prefix)} }
func put(key string, value []byte) Op { return Op{Kind: Put, Key: key, Value: value} }
func del(key string) Op               { return Op{Kind: Delete, Key: key} }
func nest(t Txn) Op                   { return Op{Kind: Nest, Txn: &t} }

// one returns the only key of a Get, or the zero KV.
func (r Result) one() KV {
	if len(r.KVs) == 0 {
		return KV{}
	}
	return r.KVs[0]
}

// PrefixEnd returns the first key behind all those with the prefix, which ends
// in "/" as all of a queue's do.
func PrefixEnd(prefix string) string {
	return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
}
