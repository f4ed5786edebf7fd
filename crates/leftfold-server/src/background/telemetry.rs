//! Telemetry of the process: logs on standard error, traces over OTLP.
//!
//! **Owns:** setting both up for a whole process, and the span around a request. **Does not know:** what other code logs.
//! **Invariants:** without an endpoint nothing is sent and no span is created; request headers are not logged.

use std::io::IsTerminal;

use http::{HeaderMap, Request};
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use tracing::Span;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, ParseError, Targets},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::one_line::OneLine;
use crate::{LogFormat, Settings};

/// The name under which traces arrive.
const SERVICE: &str = "leftfold";
/// The target of the span around a request.
const REQUEST: &str = "leftfold::request";

/// The telemetry of the process. Dropping it flushes pending traces.
#[derive(Debug)]
#[must_use = "dropping it ends the sending of traces"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Why logs or traces were not set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The setting `log_filter` cannot be parsed.
    #[error("invalid log_filter; expected levels as in `info,leftfold_server=debug`")]
    Filter(#[from] ParseError),
    /// The setting `otlp_endpoint` is not a valid endpoint.
    #[error("invalid otlp_endpoint; expected a URL as in `http://127.0.0.1:4317`")]
    Endpoint(#[from] ExporterBuildError),
    /// The process has a subscriber for logs already.
    #[error("logging already initialized in this process")]
    Twice(#[from] TryInitError),
}

/// Sets up logs and traces for the whole process. Needs a tokio runtime to send traces.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(settings: &Settings) -> Result<Telemetry, TelemetryError> {
    let traces = provider(&settings.otlp_endpoint)?;
    let tracing = traces
        .as_ref()
        .map(|provider| traced(provider.tracer(SERVICE)));
    tracing_subscriber::registry()
        .with(tracing)
        .with(logs(settings)?)
        .try_init()?;
    Ok(Telemetry { traces })
}

type BoxedLayer =
    Box<dyn Layer<tracing_subscriber::layer::Layered<Option<Traced>, Registry>> + Send + Sync>;
type Traced = Box<dyn Layer<Registry> + Send + Sync>;

fn traced(tracer: Tracer) -> Traced {
    let only_requests = Targets::new().with_target(REQUEST, LevelFilter::INFO);
    OpenTelemetryLayer::new(tracer)
        .with_filter(only_requests)
        .boxed()
}

fn logs(settings: &Settings) -> Result<BoxedLayer, TelemetryError> {
    let filter = EnvFilter::builder().parse(&settings.log_filter)?;
    let colors = std::io::stderr().is_terminal();
    let writer = move || OneLine {
        writer: std::io::stderr(),
        colors,
    };
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colors);
    Ok(match settings.log_format {
        LogFormat::Text => to_stderr.with_filter(filter).boxed(),
        LogFormat::Json => to_stderr.json().with_filter(filter).boxed(),
    })
}

fn provider(endpoint: &str) -> Result<Option<SdkTracerProvider>, ExporterBuildError> {
    if endpoint.is_empty() {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    let resource = Resource::builder().with_service_name(SERVICE).build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource);
    Ok(Some(provider.build()))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Creates the span of a request, part of the trace that its headers name. It ends when the response begins.
///
/// `name` is one of few, as a method of gRPC; never a path, which may hold the names of streams.
pub(crate) fn span<B>(request: &Request<B>, name: &str) -> Span {
    let span = tracing::info_span!(
        target: REQUEST,
        "request",
        otel.name = name,
        otel.kind = "server",
    );
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    // It fails only where no traces are sent.
    let _ = span.set_parent(parent);
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
