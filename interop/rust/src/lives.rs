//! The steps about the life of a stream: its metadata, truncation, deletion, and tombstones.
//!
//! **Owns:** what is expected of each. **Does not know:** the other steps.

use std::time::Duration;

use kurrentdb::{
    Acl, AppendToStreamOptions, DeleteStreamOptions, ReadStreamOptions, StreamAclBuilder,
    StreamMetadata, StreamMetadataBuilder, StreamMetadataResult, StreamPosition, StreamState,
    TombstoneStreamOptions, WriteResult,
};
use serde_json::json;

use crate::{Flow, Outcome, first_of};

impl Flow {
    async fn set_metadata(
        &self,
        stream: &str,
        state: StreamState,
        metadata: &StreamMetadata,
    ) -> kurrentdb::Result<WriteResult> {
        let options = AppendToStreamOptions::default().stream_state(state);
        self.client
            .set_stream_metadata(stream, &options, metadata)
            .await
    }

    pub(crate) async fn metadata(&self, stream: &str) -> Outcome<(StreamMetadata, u64)> {
        let options = ReadStreamOptions::default().max_count(1);
        match self.client.get_stream_metadata(stream, &options).await? {
            StreamMetadataResult::Success(stored) => {
                Ok((stored.metadata().clone(), stored.version()))
            }
            other => Err(format!("no metadata: {other:?}").into()),
        }
    }

    pub(crate) async fn bounded(&self) -> Outcome {
        let name = self.stream("bounded");
        let events = (1..=4).map(|amount| self.deposited(amount)).collect();
        self.append(&name, StreamState::Any, events).await?;
        let metadata = StreamMetadataBuilder::new()
            .max_count(2)
            .insert_custom_property("owner", "ann")
            .insert_custom_property("limits", json!({ "daily": [1, 2] }))
            .build();
        self.set_metadata(&name, StreamState::NoStream, &metadata)
            .await?;
        assert_eq!(self.revisions(&name).await?, [2, 3]);
        assert_eq!(self.metadata(&name).await?, (metadata, 0));
        let truncated = StreamMetadataBuilder::new().truncate_before(3).build();
        let state = StreamState::StreamRevision(0);
        self.set_metadata(&name, state, &truncated).await?;
        assert_eq!(self.revisions(&name).await?, [3]);
        let refused = self
            .set_metadata(&name, state, &StreamMetadata::new())
            .await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::WrongExpectedVersion { .. })),
            "{refused:?}"
        );
        assert_eq!(self.metadata(&name).await?, (truncated, 1));
        Ok(())
    }

    pub(crate) async fn governed(&self) -> Outcome {
        let name = self.stream("governed");
        self.append(&name, StreamState::Any, vec![self.deposited(1)])
            .await?;
        let acl = StreamAclBuilder::new()
            .add_read_roles("ann")
            .add_read_roles("bob")
            .add_write_roles("ann")
            .add_delete_roles("$admins")
            .add_meta_read_roles("$all")
            .build();
        // This client writes milliseconds where the others, and the server, take the numbers for seconds.
        let metadata = StreamMetadataBuilder::new()
            .max_age(Duration::from_secs(3600))
            .cache_control(Duration::from_secs(10))
            .acl(Acl::Stream(acl))
            .build();
        self.set_metadata(&name, StreamState::Any, &metadata)
            .await?;
        assert_eq!(self.metadata(&name).await?, (metadata, 0));
        // Nothing is that old yet.
        assert_eq!(self.revisions(&name).await?, [0]);
        Ok(())
    }

    pub(crate) async fn deleted(&self) -> Outcome {
        let name = self.stream("deleted");
        let events = vec![self.deposited(1), self.deposited(2)];
        self.append(&name, StreamState::Any, events).await?;
        let options = DeleteStreamOptions::default().stream_state(StreamState::StreamRevision(0));
        let refused = self.client.delete_stream(name.as_str(), &options).await;
        assert!(refused.is_err(), "{refused:?}");
        let options = DeleteStreamOptions::default().stream_state(StreamState::StreamRevision(1));
        self.client.delete_stream(name.as_str(), &options).await?;
        let refused = self.revisions(&name).await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::ResourceNotFound)),
            "{refused:?}"
        );
        self.append(&name, StreamState::NoStream, vec![self.deposited(3)])
            .await?;
        assert_eq!(self.revisions(&name).await?, [2]);
        Ok(())
    }

    pub(crate) async fn tombstoned(&self) -> Outcome {
        let name = self.stream("tombstoned");
        self.append(&name, StreamState::Any, vec![self.deposited(1)])
            .await?;
        let mut subscription = self.follow_stream(&name, StreamPosition::Start).await;
        first_of(&mut subscription, 1).await?;
        let options = TombstoneStreamOptions::default();
        self.client
            .tombstone_stream(name.as_str(), &options)
            .await?;
        let ended = subscription.next().await;
        assert!(
            matches!(ended, Err(kurrentdb::Error::ResourceDeleted)),
            "{ended:?}"
        );
        // Known before the first event, so the call itself fails.
        let options = ReadStreamOptions::default();
        let refused = self.client.read_stream(name.as_str(), &options).await;
        assert!(matches!(refused, Err(kurrentdb::Error::ResourceDeleted)));
        let refused = self
            .append(&name, StreamState::Any, vec![self.deposited(2)])
            .await;
        assert!(
            matches!(refused, Err(kurrentdb::Error::ResourceDeleted)),
            "{refused:?}"
        );
        Ok(())
    }
}
