package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are what one member tells a monitoring system. They are in a registry of their own: a process may run several
// members.
type Metrics struct {
	registry *prometheus.Registry
	checks   *prometheus.CounterVec
	state    *prometheus.GaugeVec
	success  prometheus.Counter
	failures prometheus.Counter
}

// Emitter takes the values of one scrape. Labels are names and values in turn.
type Emitter interface {
	Gauge(name, help string, value float64, labels ...string)
	Counter(name, help string, value float64, labels ...string)
}

// Histogram counts durations, in seconds.
type Histogram interface{ Observe(seconds float64) }

// NewMetrics returns metrics of which collect tells all that it can tell when it is asked. It is called for each scrape,
// by several goroutines at once if need be.
func NewMetrics(collect func(Emitter)) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_server_healthchecks_total", Help: "Health checks, by result.",
		}, []string{"type", "name", "status"}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "etcd_server_healthcheck", Help: "The last result of each health check.",
		}, []string{"type", "name"}),
		success:  prometheus.NewCounter(prometheus.CounterOpts{Name: "etcd_server_health_success", Help: "Successful requests of /health."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "etcd_server_health_failures", Help: "Failed requests of /health."}),
	}
	m.registry.MustRegister(m.checks, m.state, m.success, m.failures, scraped(collect),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Histogram adds a histogram with count buckets from first seconds up, each twice as wide as the one before.
func (m *Metrics) Histogram(name, help string, first float64, count int) Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: Doubling(first, count),
	})
	m.registry.MustRegister(h)
	return h
}

// Doubling returns the bounds of count buckets from first seconds up, each twice as wide as the one before.
func Doubling(first float64, count int) []float64 {
	return prometheus.ExponentialBuckets(first, 2, count)
}

// Histograms adds a family of histograms; without bounds they have gRPC's usual ones. The values that are given to the
// function it returns are those of labels.
func (m *Metrics) Histograms(name, help string, bounds []float64, labels ...string) func(values ...string) Histogram {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, labels)
	m.registry.MustRegister(v)
	return func(values ...string) Histogram { return v.WithLabelValues(values...) }
}

func (m *Metrics) handler() http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesMax,
	}))
}

// scrapesMax bounds the scrapes of a member that are under way; more are answered with 503.
const scrapesMax = 16

func (m *Metrics) countHealth(ok bool) {
	if ok {
		m.success.Inc()
		return
	}
	m.failures.Inc()
}

func (m *Metrics) countCheck(kind, name string, ok bool) {
	status, value := "success", 1.0
	if !ok {
		status, value = "error", 0
	}
	m.state.WithLabelValues(kind, name).Set(value)
	m.checks.WithLabelValues(kind, name, status).Inc()
}

// scraped collects values that are only known when somebody asks.
type scraped func(Emitter)

// Describe describes nothing: which metrics there are is known when they are collected.
func (scraped) Describe(chan<- *prometheus.Desc) {}

func (s scraped) Collect(to chan<- prometheus.Metric) { s(emitter(to)) }

// emitter makes metrics of values.
type emitter chan<- prometheus.Metric

func (e emitter) Gauge(name, help string, value float64, labels ...string) {
	e.emit(prometheus.GaugeValue, name, help, value, labels)
}

func (e emitter) Counter(name, help string, value float64, labels ...string) {
	e.emit(prometheus.CounterValue, name, help, value, labels)
}

func (e emitter) emit(kind prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(name, help, names, nil)
	metric, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(desc, err)
	}
	e <- metric
}
