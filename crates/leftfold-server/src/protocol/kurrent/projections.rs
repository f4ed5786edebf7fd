//! The service `Projections`: system projections; it refuses those of users.
//!
//! **Owns:** which system projections there are, and what is told of them. **Does not know:** how indexes are read.
//! **Invariants:** nothing is answered as done that is not: what a system projection would link to is there whenever it is
//! read, so it can neither lag behind nor be switched off.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_proto::{
    event_store::client::{
        Empty,
        projections::{
            CreateReq, CreateResp, DeleteReq, DeleteResp, DisableReq, DisableResp, EnableReq,
            EnableResp, ResetReq, ResetResp, ResultReq, ResultResp, StateReq, StateResp,
            StatisticsReq, StatisticsResp, UpdateReq, UpdateResp,
            create_req::options::Mode as CreateMode, projections_server,
            statistics_req::options::Mode, statistics_resp::Details,
        },
    },
    prost_types::{Struct, Value, value::Kind},
};
use tonic::{Request, Response, Status, async_trait};

use super::status;
use crate::state::ServerState;

/// The system projections whose streams this server computes.
const SYSTEM: [&str; 5] = [
    "$by_category",
    "$by_correlation_id",
    "$by_event_type",
    "$stream_by_category",
    "$streams",
];

/// The service.
#[derive(Debug)]
pub(super) struct Projections(pub(super) Arc<ServerState>);

/// Refuses a projection that is none of the system's.
fn known(name: &str) -> Result<(), Status> {
    match SYSTEM.contains(&name) {
        true => Ok(()),
        false => Err(status::projection_not_found(name, &SYSTEM.join(", "))),
    }
}

/// Says no to a projection of a user.
fn refused(what: &str, name: &str) -> Status {
    let shown: String = name.chars().take(200).collect();
    Status::unimplemented(format!(
        "projection {shown:?} not {what}: this server runs no projections of users; read an index ($ce-, $et-), \
         follow $all with a filter, or use a listener in a language of your own"
    ))
}

/// Says no to a change of a system projection.
fn fixed(name: &str, what: &str) -> Status {
    Status::failed_precondition(format!(
        "system projection {name} cannot be {what}: its streams are computed from the log when they are read"
    ))
}

fn empty_object() -> Value {
    Value {
        kind: Some(Kind::StructValue(Struct::default())),
    }
}

/// The options of a request, which must be there.
fn required<T>(options: Option<T>) -> Result<T, Status> {
    options.ok_or_else(|| status::missing("options"))
}

impl Projections {
    async fn details(&self, name: &str) -> Result<StatisticsResp, Status> {
        let head = self.0.store().head().await.map_err(status::of_read)?;
        let position = format!("C:{head}/P:{head}");
        Ok(StatisticsResp {
            details: Some(Details {
                effective_name: name.to_owned(),
                name: name.to_owned(),
                status: "Running".to_owned(),
                mode: "Continuous".to_owned(),
                last_checkpoint: position.clone(),
                position,
                progress: 100.0,
                ..Details::default()
            }),
        })
    }
}

#[async_trait]
impl projections_server::Projections for Projections {
    type StatisticsStream = BoxStream<'static, Result<StatisticsResp, Status>>;

    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let name = match required(request.into_inner().options)?.mode {
            Some(CreateMode::Transient(transient)) => transient.name,
            Some(CreateMode::Continuous(continuous)) => continuous.name,
            Some(CreateMode::OneTime(_)) | None => "one-time".to_owned(),
        };
        Err(refused("created", &name))
    }

    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let name = required(request.into_inner().options)?.name;
        known(&name)?;
        Err(fixed(&name, "changed"))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let name = required(request.into_inner().options)?.name;
        known(&name)?;
        Err(fixed(&name, "deleted"))
    }

    async fn statistics(
        &self,
        request: Request<StatisticsReq>,
    ) -> Result<Response<Self::StatisticsStream>, Status> {
        let names = match required(request.into_inner().options)?.mode {
            Some(Mode::Name(name)) => {
                known(&name)?;
                vec![name]
            }
            Some(Mode::All(_) | Mode::Continuous(_)) => SYSTEM.map(str::to_owned).to_vec(),
            // There are none, since users have none.
            Some(Mode::Transient(_) | Mode::OneTime(_)) => Vec::new(),
            None => return Err(status::missing("mode")),
        };
        let mut details = Vec::with_capacity(names.len());
        for name in names {
            details.push(Ok(self.details(&name).await?));
        }
        Ok(Response::new(stream::iter(details).boxed()))
    }

    async fn disable(&self, request: Request<DisableReq>) -> Result<Response<DisableResp>, Status> {
        let name = required(request.into_inner().options)?.name;
        known(&name)?;
        Err(fixed(&name, "disabled"))
    }

    async fn enable(&self, request: Request<EnableReq>) -> Result<Response<EnableResp>, Status> {
        let name = required(request.into_inner().options)?.name;
        // It runs already.
        known(&name).map(|()| Response::new(EnableResp {}))
    }

    async fn reset(&self, request: Request<ResetReq>) -> Result<Response<ResetResp>, Status> {
        let name = required(request.into_inner().options)?.name;
        // There is no state that could be other than what the log says.
        known(&name).map(|()| Response::new(ResetResp {}))
    }

    async fn state(&self, request: Request<StateReq>) -> Result<Response<StateResp>, Status> {
        known(&required(request.into_inner().options)?.name)?;
        Ok(Response::new(StateResp {
            state: Some(empty_object()),
        }))
    }

    async fn result(&self, request: Request<ResultReq>) -> Result<Response<ResultResp>, Status> {
        known(&required(request.into_inner().options)?.name)?;
        Ok(Response::new(ResultResp {
            result: Some(empty_object()),
        }))
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        // Nothing runs between two reads.
        Ok(Response::new(Empty {}))
    }
}
