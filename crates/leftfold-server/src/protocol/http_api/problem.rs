//! Errors as problem details (RFC 9457).
//!
//! **Owns:** [`Problem`]: the kinds, their status codes and texts. **Does not know:** routes.
//! **Invariants:** every failed request gets one of the kinds; if a value is at fault, the problem names the field, the value
//! and the limit; a problem says whether something was written.

use axum::{
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use leftfold_error_codes::ErrorCode;
use leftfold_model::{
    Conflict, CurrentRevision, ErrorChain, ExpectedRevision, ModelError, StreamName,
    truncate_for_display,
};
use leftfold_store::{AppendError, ReadError};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    call::{OutcomeUnknown, QueryError},
    connection::BudgetExhausted,
    groups::{FilterError, GroupError},
    json::{self, EventJsonError},
};

/// Maximum bytes of one text. Values of a request are repeated in its problem, long ones shortened.
const TEXT_BYTES_MAX: usize = 1_024;
/// Where the pages of the error codes are.
pub(super) const PAGES: &str = "/errors";
/// The media type of a problem.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of problem: its error code and its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProblemKind(ErrorCode, StatusCode);

impl ProblemKind {
    pub(super) const INVALID: Self = Self(ErrorCode::InvalidRequest, StatusCode::BAD_REQUEST);
    pub(super) const CROSS_ORIGIN: Self = Self(ErrorCode::CrossOrigin, StatusCode::FORBIDDEN);
    pub(super) const UNAUTHENTICATED: Self =
        Self(ErrorCode::Unauthenticated, StatusCode::UNAUTHORIZED);
    pub(super) const TOO_MANY_FAILURES: Self =
        Self(ErrorCode::TooManyFailures, StatusCode::TOO_MANY_REQUESTS);
    pub(super) const ACCESS_DENIED: Self = Self(ErrorCode::AccessDenied, StatusCode::FORBIDDEN);
    pub(super) const NOT_FOUND: Self = Self(ErrorCode::NotFound, StatusCode::NOT_FOUND);
    pub(super) const METHOD: Self =
        Self(ErrorCode::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED);
    pub(super) const SLOW: Self = Self(ErrorCode::RequestTimeout, StatusCode::REQUEST_TIMEOUT);
    pub(super) const CONFLICT: Self = Self(ErrorCode::WrongRevision, StatusCode::CONFLICT);
    pub(super) const CONDITION: Self = Self(ErrorCode::ConditionFailed, StatusCode::CONFLICT);
    pub(super) const PARTLY: Self = Self(ErrorCode::PartlyStored, StatusCode::CONFLICT);
    pub(super) const RUNNING: Self = Self(ErrorCode::ScavengeRunning, StatusCode::CONFLICT);
    pub(super) const EXISTS: Self = Self(ErrorCode::AlreadyExists, StatusCode::CONFLICT);
    pub(super) const FULL: Self = Self(ErrorCode::ConsumersLimit, StatusCode::CONFLICT);
    pub(super) const ELSEWHERE: Self =
        Self(ErrorCode::OwnedElsewhere, StatusCode::MISDIRECTED_REQUEST);
    pub(super) const DELETED: Self = Self(ErrorCode::StreamDeleted, StatusCode::GONE);
    pub(super) const TOO_LARGE: Self =
        Self(ErrorCode::ContentTooLarge, StatusCode::PAYLOAD_TOO_LARGE);
    pub(super) const MEDIA: Self = Self(
        ErrorCode::UnsupportedMediaType,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
    );
    pub(super) const CORRUPT: Self = Self(ErrorCode::Corrupt, StatusCode::INTERNAL_SERVER_ERROR);
    pub(super) const UNKNOWN: Self = Self(ErrorCode::OutcomeUnknown, StatusCode::GATEWAY_TIMEOUT);
    pub(super) const UNAVAILABLE: Self =
        Self(ErrorCode::StoreUnavailable, StatusCode::SERVICE_UNAVAILABLE);
}

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Details>);

/// A problem, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Details {
    /// Path of a page about this kind of problem: `/errors/` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// Code of the kind, as in `LF0002`.
    code: &'static str,
    /// The kind in words.
    title: &'static str,
    status: u16,
    /// What happened, for people.
    detail: String,
    /// The field at fault: a path in the body, the name of a parameter, or of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The value of the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// What the field may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    /// The stream that is not as expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// The revision that was expected: a number, `any`, `none` or `exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Value>,
    /// The revision the stream has; `none` if it has no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Value>,
    /// The index of the condition that fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<usize>,
    /// The position of the conflicting event.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
}

impl Problem {
    pub(super) fn new(ProblemKind(code, status): ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind: format!("{PAGES}/{code}"),
            code: code.number(),
            title: code.title(),
            status: status.as_u16(),
            detail: truncated(&detail.into()),
            field: None,
            value: None,
            limit: None,
            stream: None,
            expected: None,
            actual: None,
            condition: None,
            position: None,
        }))
    }

    /// The fields of the problem's JSON.
    pub(super) fn details(&self) -> &Details {
        &self.0
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(&mut self.0);
        self
    }

    /// Creates the problem of an invalid value.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = field.into();
        let detail = format!("{field}: {}", detail.into());
        Self::new(ProblemKind::INVALID, detail).of(field)
    }

    /// Names the field at fault: a path in the body, a parameter or a header.
    pub(super) fn of(self, field: impl Into<String>) -> Self {
        self.with(|problem| problem.field = Some(truncated(&field.into())))
    }

    /// Appends to the detail how to find out the outcome; changes only problems whose outcome is unknown.
    pub(super) fn with_hint(self, way: &str) -> Self {
        if self.0.status != ProblemKind::UNKNOWN.1.as_u16() {
            return self;
        }
        self.with(|problem| problem.detail = format!("{}; {way}", problem.detail))
    }

    /// Sets the value at fault, shortened if it is a long text.
    pub(super) fn with_value(self, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::String(text) => truncated(&text).into(),
            other => other,
        };
        self.with(|problem| problem.value = Some(value))
    }

    /// Sets the value at fault and the limit it breaks.
    pub(super) fn with_value_and_limit(
        self,
        value: impl Into<Value>,
        limit: impl Into<Value>,
    ) -> Self {
        self.with_value(value)
            .with(|problem| problem.limit = Some(limit.into()))
    }

    /// Creates the problem of a request, or a part of one, for which there is no memory.
    pub(super) fn overloaded(exhausted: BudgetExhausted, part: &str) -> Self {
        Self::new(ProblemKind::UNAVAILABLE, exhausted.to_string()).of(part)
    }

    /// Creates the problem of an event for another stream than the one it is appended to.
    pub(super) fn stream_mismatch(field: &str, given: &str, stream: &str) -> Self {
        let problem = Self::invalid(format!("{field}.stream"), "not the stream of the append");
        problem.with_value_and_limit(given, stream)
    }

    /// Creates the problem of a value that breaks a rule of the model.
    pub(super) fn of_model(field: impl Into<String>, error: &ModelError) -> Self {
        let problem = Self::invalid(field, error.to_string());
        match error {
            ModelError::OutOfRange {
                unit,
                got,
                min,
                max,
                limit,
                ..
            } => {
                let limit =
                    serde_json::json!({"name": limit, "unit": unit, "min": min, "max": max});
                problem.with_value_and_limit(*got, limit)
            }
            ModelError::DuplicateEventId { id } => problem.with_value(id.to_string()),
            ModelError::NotAnEventId { value } => {
                problem.with_value_and_limit(value.as_str(), "a UUID")
            }
            _ => problem,
        }
    }

    /// Creates the problem of an event that cannot be parsed.
    pub(super) fn of_event(field: &str, error: EventJsonError) -> Self {
        let part = |part: &str| format!("{field}.{part}");
        let text = error.to_string();
        match error {
            EventJsonError::Model { field, error } => Self::of_model(part(field), &error),
            EventJsonError::Base64 { field, source } => Self::invalid(
                part(&format!("{field}_base64")),
                format!("not base64: {source}"),
            ),
            EventJsonError::Twice(field) => {
                Self::invalid(part(&format!("{field}_base64")), text).with_value(field)
            }
            EventJsonError::Time { given } => Self::invalid(part("time"), text)
                .with_value_and_limit(given, "RFC 3339, from 1970 on"),
            EventJsonError::ContentType(given) => {
                let known: Vec<_> = json::media_types().collect();
                Self::invalid(part("content_type"), text).with_value_and_limit(given, known)
            }
            _ => Self::invalid(field, text),
        }
    }

    fn of_conflict(conflict: &Conflict) -> Self {
        let of = |kind| Self::new(kind, conflict.to_string());
        match conflict {
            Conflict::WrongRevision {
                stream,
                expected,
                actual,
            } => of(ProblemKind::CONFLICT).with(|problem| {
                problem.stream = Some(stream.to_string());
                problem.expected = Some(expected_word(*expected));
                problem.actual = Some(actual_word(*actual));
            }),
            Conflict::StreamDeleted { stream } => of_deleted(conflict, stream),
            Conflict::ConditionFailed {
                condition,
                position,
            } => of(ProblemKind::CONDITION).with(|problem| {
                problem.condition = Some(*condition);
                problem.position = Some(position.get());
            }),
            Conflict::PartlyStored { id, position } => of(ProblemKind::PARTLY).with(|problem| {
                problem.value = Some(id.to_string().into());
                problem.position = Some(position.get());
            }),
            _ => of(ProblemKind::CONFLICT),
        }
    }
}

fn truncated(text: &str) -> String {
    truncate_for_display(text, TEXT_BYTES_MAX).into_owned()
}

fn of_deleted(error: &dyn std::error::Error, stream: &StreamName) -> Problem {
    Problem::new(ProblemKind::DELETED, error.to_string())
        .with(|problem| problem.stream = Some(stream.to_string()))
}

/// An expected revision as the request's parameter spells it.
fn expected_word(expected: ExpectedRevision) -> Value {
    match expected {
        ExpectedRevision::Any => "any".into(),
        ExpectedRevision::NoStream => "none".into(),
        ExpectedRevision::StreamExists => "exists".into(),
        ExpectedRevision::Exact(revision) => revision.get().into(),
    }
}

fn actual_word(CurrentRevision(actual): CurrentRevision) -> Value {
    actual.map_or_else(|| "none".into(), |revision| revision.get().into())
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match &error {
            AppendError::Conflict(conflict) => Self::of_conflict(conflict),
            AppendError::Invalid { .. } => Self::new(ProblemKind::INVALID, error.to_string()),
            AppendError::AccessDenied { .. } => {
                Self::new(ProblemKind::ACCESS_DENIED, error.to_string())
            }
            AppendError::Unavailable { .. } => {
                Self::new(ProblemKind::UNAVAILABLE, ErrorChain(&error).to_string())
            }
            // Of what this protocol has no word for, the client must expect the worst.
            _ => Self::new(ProblemKind::UNKNOWN, ErrorChain(&error).to_string()),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::StreamDeleted { stream } => of_deleted(&error, stream),
            ReadError::Corrupt { .. } => {
                Self::new(ProblemKind::CORRUPT, ErrorChain(&error).to_string())
            }
            ReadError::Invalid { .. } => Self::new(ProblemKind::INVALID, error.to_string()),
            ReadError::AccessDenied { .. } => {
                Self::new(ProblemKind::ACCESS_DENIED, error.to_string())
            }
            _ => Self::new(ProblemKind::UNAVAILABLE, ErrorChain(&error).to_string()),
        }
    }
}

impl From<OutcomeUnknown> for Problem {
    fn from(error: OutcomeUnknown) -> Self {
        Self::new(ProblemKind::UNKNOWN, error.to_string())
    }
}

impl From<GroupError> for Problem {
    fn from(error: GroupError) -> Self {
        let text = ErrorChain(&error).to_string();
        match error {
            GroupError::Exists(_) => Self::new(ProblemKind::EXISTS, text),
            GroupError::NotFound(_) => Self::new(ProblemKind::NOT_FOUND, text),
            GroupError::Filter(FilterError::Exhausted) => Self::new(ProblemKind::UNAVAILABLE, text),
            GroupError::Invalid(_) | GroupError::Filter(_) => Self::new(ProblemKind::INVALID, text),
            GroupError::SubscribersMax { max, .. } => {
                Self::new(ProblemKind::FULL, text).with(|it| it.limit = Some(max.into()))
            }
            GroupError::OwnedElsewhere { owner, .. }
            | GroupError::OwnerIndistinct { owner, .. } => {
                Self::new(ProblemKind::ELSEWHERE, text).with_value(owner)
            }
            GroupError::Damaged { .. } => Self::new(ProblemKind::CORRUPT, text),
            GroupError::Model(error) => Self::of_model("group", &error),
            GroupError::Read(error) => error.into(),
            GroupError::Append(error) => error.into(),
            GroupError::Dropped { .. } | GroupError::Stopping | GroupError::Consumers(_) => {
                Self::new(ProblemKind::UNAVAILABLE, text)
            }
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::new(ProblemKind::UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        let kind = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
