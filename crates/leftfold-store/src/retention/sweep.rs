//! Finding the events that a scavenge may erase.
//!
//! **Owns:** computing the truncation of every stream with metadata. **Does not know:** how a back end erases.
//! **Invariants:** an event is erased only if no read of its stream that begins now could return it; metadata streams keep
//! their newest event.

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{CurrentRevision, Revision, StreamName};

use super::{BackendStore, lifecycle::Phase};
use crate::{Backend, ListStreams, ReadError, Scavenge, ScavengeProgress, backend::Truncation};

impl<B: Backend> BackendStore<B> {
    pub(super) fn sweep(
        self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        let begin = async move {
            let truncations = self.truncations().await?;
            let streams = truncations.len() as u64;
            if streams == 0 {
                let nothing = ScavengeProgress {
                    finished: true,
                    ..ScavengeProgress::default()
                };
                return Ok(stream::once(async move { Ok(nothing) }).boxed());
            }
            let progress = self.backend.erase(truncations, scavenge.bytes_per_second);
            Ok(progress
                .map_ok(move |progress| ScavengeProgress {
                    streams,
                    ..progress
                })
                .boxed())
        };
        Box::pin(stream::once(begin).try_flatten())
    }

    /// What can be given up, by stream.
    async fn truncations(&self) -> Result<Vec<Truncation>, ReadError> {
        let mut truncations = Vec::new();
        let mut described = self.backend.streams(ListStreams {
            prefix: "$$".into(),
            ..ListStreams::default()
        });
        while let Some(infos) = described.try_next().await? {
            for info in infos {
                let Some(stream) = info.stream.described_stream() else {
                    continue;
                };
                if info.revision > Revision::FIRST {
                    let before = info.revision;
                    truncations.push(Truncation {
                        stream: info.stream,
                        before,
                    });
                }
                if let Some(before) = self.truncatable_before(&stream).await? {
                    truncations.push(Truncation { stream, before });
                }
            }
        }
        Ok(truncations)
    }

    /// The first revision of a stream that has to stay, unless that is its very first.
    async fn truncatable_before(&self, stream: &StreamName) -> Result<Option<Revision>, ReadError> {
        let window = self.window(stream).await?;
        let CurrentRevision(Some(last)) = self.backend.current(stream.clone()).await? else {
            return Ok(None);
        };
        let next = last.next();
        let before = match window.lifecycle.phase {
            Phase::Deleted | Phase::Tombstoned => next,
            Phase::Live => self.first_kept(&window, stream, next).await?,
        };
        Ok((before > Revision::FIRST).then_some(before))
    }
}
