//! One request, as a handler sees it.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderMap, Method};
use warp::ws::Ws;

use super::front::Front;
use super::resources::{Id, IdKind, Params, Resource};
use super::settings::{Settings, Shape};
use super::style::Style;
use super::{Failure, Reply, de, negotiate};
use crate::dialects::payload::Payload;
use crate::dialects::{Arrival, form};
use crate::error::Error;
use crate::model::{BackupId, DiskId, FileName, NicId, PmId, SnapshotId, StorlinkId, TaskId, TemplateId, VmId};
use crate::operations::{Core, Done, Operation};

pub struct Call {
    pub core: Core,
    /// What the prefix of the URI asked for.
    pub shape: Shape,
    pub headers: HeaderMap,
    /// `None` when no listener of ours took the request.
    pub arrival: Option<Arrival>,
    pub(super) front: Arc<Front>,
    pub(super) resource: &'static Resource,
    pub(super) params: Params,
    pub(super) name: Option<FileName>,
    pub(super) method: Method,
    /// As it was sent, below a listener's root.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Of a request that asks for a WebSocket.
    pub(super) ws: Option<Ws>,
    pub(super) payload: Payload,
}

macro_rules! ids {
    ($($getter:ident $id:ident $kind:ident $form:ident),+ $(,)?) => {$(
        /// The id in the path; an error only if the pattern has none, which is a defect of the table.
        pub fn $getter(&self) -> Result<$id, Failure> {
            match self.param(IdKind::$kind) {
                Some(Id::$form(id)) => Ok($id(id)),
                _ => Err(Error::internal(concat!("the pattern has no ", stringify!($getter))).into()),
            }
        }
    )+};
}

impl Call {
    ids! {
        vm VmId Vm Uuid,
        pm PmId Pm Uuid,
        template TemplateId Template Uuid,
        disk DiskId Disk Uuid,
        snapshot SnapshotId Snapshot Uuid,
        backup BackupId Backup Uuid,
        task TaskId Task Uuid,
        storlink StorlinkId Storlink Number,
        nic NicId Nic Number,
    }

    /// The file that the path names; an error as above.
    pub fn file_name(&self) -> Result<FileName, Failure> {
        self.name.clone().ok_or_else(|| Error::internal("the pattern has no name").into())
    }

    fn param(&self, kind: IdKind) -> Option<Id> {
        self.params.iter().flatten().find(|(k, _)| *k == kind).map(|(_, id)| *id)
    }

    pub fn settings(&self) -> &Settings {
        &self.front.settings
    }

    pub fn style(&self) -> &Style {
        &self.front.settings.style
    }

    /// As it was sent: HEAD is not GET here.
    pub fn method(&self) -> &Method {
        &self.method
    }

    pub fn pattern(&self) -> &'static str {
        self.resource.pattern
    }

    /// The last value of a key of the query, decoded; empty for a key without a value.
    pub fn query(&self, key: &str) -> Option<String> {
        form::last(self.query.as_deref()?, key).map(|value| value.into_owned())
    }

    /// Whether the client wants a 202 at once (`Prefer: respond-async`, RFC 7240).
    pub fn respond_async(&self) -> bool {
        negotiate::prefers_async(&self.headers)
    }

    /// How long `?wait` or `?wait=SECONDS` asks to wait, at most the limit of the settings; `None` without it.
    pub fn wait(&self) -> Result<Option<Duration>, Failure> {
        let limit = self.settings().wait_limit;
        match self.query("wait") {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(Some(limit)),
            Some(text) => match text.parse() {
                Ok(secs) => Ok(Some(Duration::from_secs(secs).min(limit))),
                Err(_) => Err(Error::invalid("wait", "must be a whole number of seconds").into()),
            },
        }
    }

    /// Refuses a body of which some fields are bad, and names with them the fields that the site cannot serve; those alone
    /// that are bad in themselves while the site cannot be asked. The question may go to a storage.
    pub async fn refuse<T>(
        &self,
        bad: Error,
        site: impl FnOnce(&Core) -> Result<T, Error> + Send + 'static,
    ) -> Result<Reply, Failure> {
        let more = self.core.read_storage(None, move |core| Ok(site(core).err())).await.unwrap_or_else(Some);
        Err(match more {
            Some(more) => bad.and_problems_of(more),
            None => bad,
        }
        .into())
    }

    /// Runs an operation as a task and answers its outcome; or, if the client prefers, at once where the task is.
    pub async fn perform<O: Operation>(
        &self,
        operation: O,
        answer: impl FnOnce(Done<O::Output>) -> Reply,
    ) -> Result<Reply, Failure> {
        self.perform_and_show(operation, |done| Ok(answer(done))).await
    }

    /// As [`Call::perform`], where the answer is a document.
    pub async fn perform_and_show<O: Operation>(
        &self,
        operation: O,
        answer: impl FnOnce(Done<O::Output>) -> Result<Reply, Failure>,
    ) -> Result<Reply, Failure> {
        let handle = self.core.submit(operation).await?;
        if self.respond_async() {
            return Ok(Reply::Accepted { task: handle.id });
        }
        answer(self.core.wait(handle).await?)
    }

    /// Reads the body, once: within the limit and the deadline of the settings. An empty body is an empty mapping.
    pub async fn body<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let settings = &self.front.settings;
        let bytes = self.payload.read(settings.body_limit, settings.body_deadline).await?;
        let node = negotiate::body(self.headers.get(CONTENT_TYPE), &bytes)?;
        de::from_node(node).map_err(|why| Failure::BadBody { why: why.to_string() })
    }
}
