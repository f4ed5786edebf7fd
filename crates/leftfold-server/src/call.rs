//! Calls that change something.
//!
//! **Owns:** [`finish`]. **Does not know:** what is changed.
//! **Invariants:** a call that was begun is finished, also when its client is gone or has waited long enough.

use std::future::Future;

use tonic::Status;

use crate::shared::Shared;

/// Carries out a call, and waits for its end as long as a call may take.
pub(crate) async fn finish<T: Send + 'static>(
    shared: &Shared,
    call: impl Future<Output = T> + Send + 'static,
) -> Result<T, Status> {
    let within = shared.settings.call_timeout;
    match tokio::time::timeout(within, shared.tasks.spawn(call)).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(panicked)) => {
            tracing::error!(error = &panicked as &dyn std::error::Error, "call panicked");
            Err(Status::internal(
                "the call broke off; its outcome is unknown",
            ))
        }
        Err(_) => Err(Status::deadline_exceeded(format!(
            "not done after {} ms; it goes on, and its outcome is unknown",
            within.as_millis()
        ))),
    }
}
