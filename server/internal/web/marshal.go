package web

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// marshaler is the JSON of etcd: names as in the protocol's files, no zero values, unknown fields are ignored.
type marshaler struct{ runtime.JSONPb }

func newMarshaler() *marshaler {
	return &marshaler{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}}
}

// errorBody is an error as all versions of etcd say it, for clients that know one of them.
type errorBody struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	Code    int    `json:"code"`
}

// streamError is the same on a stream.
type streamError struct {
	GRPCCode   int    `json:"grpc_code"`
	HTTPCode   int    `json:"http_code"`
	Message    string `json:"message"`
	HTTPStatus string `json:"http_status"`
	Code       int    `json:"code"`
}

// statusMessage is google.rpc.Status.
type statusMessage interface {
	GetCode() int32
	GetMessage() string
}

// Marshal implements runtime.Marshaler.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case statusMessage:
		return plain(errorBody{Error: v.GetMessage(), Message: v.GetMessage(), Code: int(v.GetCode())})
	case map[string]proto.Message: // what the runtime makes of an error on a stream
		if s, ok := v["error"].(statusMessage); ok {
			code := runtime.HTTPStatusFromCode(codes.Code(s.GetCode()))
			return plain(map[string]streamError{"error": {
				GRPCCode: int(s.GetCode()), HTTPCode: code, Message: s.GetMessage(),
				HTTPStatus: http.StatusText(code), Code: int(s.GetCode()),
			}})
		}
	}
	b, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	return compact(b), nil
}

// compact takes out the space that protojson puts in, or not, so that nobody relies on it.
func compact(b []byte) []byte {
	if !bytes.Contains(b, []byte(`, "`)) && !bytes.Contains(b, []byte(`, {`)) && !bytes.Contains(b, []byte(`": `)) {
		return b
	}
	var to bytes.Buffer
	to.Grow(len(b))
	if json.Compact(&to, b) != nil {
		return b
	}
	return to.Bytes()
}

// plain is JSON as it is, without HTML's entities.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// NewDecoder implements runtime.Marshaler. It tells a body of several documents where one ends. The first that can not be
// read is the end of them: the runtime would only write the reason, with parts of the document, to the process's log.
func (m *marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	d := m.JSONPb.NewDecoder(r)
	body, ok := r.(*documents)
	if !ok {
		return d
	}
	return runtime.DecoderFunc(func(v any) error {
		if d.Decode(v) != nil {
			return io.EOF
		}
		body.next()
		return nil
	})
}

// writeError answers a request with an error.
func writeError(_ context.Context, _ *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	s := status.Convert(err)
	h := w.Header()
	h.Del("Trailer")
	h.Del("Transfer-Encoding")
	h.Set("Content-Type", "application/json")
	if s.Code() == codes.Unauthenticated {
		h.Set("WWW-Authenticate", s.Message())
	}
	body, merr := m.Marshal(s.Proto())
	if merr != nil { // a text that is not UTF-8
		body = []byte(`{"error":"unknown","message":"unknown","code":13}`)
	}
	w.WriteHeader(runtime.HTTPStatusFromCode(s.Code()))
	_, _ = w.Write(body)
}
