//! From a request to its handler. The order of decisions: who is let in, the body, path and method.

use warp::http::Method;
use warp::reply::Response;

use super::failure::Failure;
use super::fields::Fields;
use super::reply::{self, Reply};
use super::{TABLE, cluster, console, container, create, help, manage, nodes, templates, users, utils};
use crate::config;
use crate::dialects::ask::Ask;
use crate::dialects::open_door::OpenDoor;
use crate::dialects::table::{self, Resource};
use crate::dialects::{Route, User};
use crate::operations::{Core, Gate};

/// What all requests share.
pub(super) struct Front {
    pub(super) gate: Gate,
    pub(super) door: OpenDoor,
    pub(super) settings: config::ProxmoxApi,
}

/// One request, let in and read.
pub(super) struct Call<'a> {
    pub(super) core: Core,
    pub(super) fields: Fields,
    pub(super) settings: &'a config::ProxmoxApi,
    /// Where browsers find the dialect; and the path of that.
    pub(super) base: String,
    pub(super) prefix: String,
}

pub(super) type Answer = Result<Reply, Failure>;

impl Front {
    pub(super) async fn answer(&self, mut ask: Ask) -> Response {
        let resource = ask.segments().and_then(|segments| table::find(TABLE, &segments));
        if let Some(opened) = console::asked(self, &mut ask).await {
            return labelled(opened.unwrap_or_else(|why| why.into_response(ask.arrival.as_ref())), resource);
        }
        let mut user = None;
        let mut response = match self.reply(&ask, resource, &mut user).await {
            Ok(reply) => reply.into_response(),
            Err(failure) => failure.into_response(ask.arrival.as_ref()),
        };
        if let Some(user) = user {
            response.extensions_mut().insert(user);
        }
        labelled(response, resource)
    }

    async fn reply(&self, ask: &Ask, resource: Option<&'static Resource>, user: &mut Option<User>) -> Answer {
        let core = self.door.enter(ask).await?;
        *user = Some(User(core.caller().to_string()));
        let reading = matches!(ask.method, Method::GET | Method::HEAD) || ask.method.as_str() == "REPORT";
        let fields = Fields::read(ask, reading).await?;
        let method = if ask.method == Method::HEAD { "GET" } else { ask.method.as_str() };
        let unknown = || Failure::UnknownRoute { method: ask.method.clone(), path: ask.path.clone() };
        let resource = resource.filter(|resource| resource.methods.contains(&method)).ok_or_else(unknown)?;
        let (base, prefix) = (ask.base(), ask.prefix());
        let call = Call { core, fields, settings: &self.settings, base, prefix };
        match (method, resource.pattern) {
            ("OPTIONS", pattern) => Ok(help::of(pattern, resource.methods)),
            ("GET", "/") => Ok(Reply::text("Running")),
            ("GET", "/user") => users::list(call).await,
            ("POST", "/user") => users::add(call).await,
            ("PUT", "/user") => users::change(call).await,
            ("DELETE", "/user") => users::remove(call).await,
            ("REPORT", "/node") => nodes::report(call).await,
            ("REPORT", "/cluster") => cluster::report(call).await,
            ("GET", "/cluster") => cluster::scheduled(call).await,
            ("DELETE", "/cluster") => cluster::carry_out(call).await,
            ("GET", "/cluster/nextid") => cluster::next_id(call).await,
            ("GET", "/template") => templates::list(call).await,
            ("GET", "/container") => container::status(call).await,
            ("POST", "/container") => create::create(call).await,
            ("PUT", "/container") => container::modify(call).await,
            ("DELETE", "/container") => container::schedule(call).await,
            ("POST", "/manage/on") => manage::on(call).await,
            ("POST", "/manage/off") => manage::off(call).await,
            ("GET", "/utils/vnc") => utils::vnc(call).await,
            ("GET", "/utils/graphic") => utils::graphic(call).await,
            ("GET", "/utils/ticket") => Ok(utils::ticket()),
            _ => Err(unknown()),
        }
    }
}

/// With the headers that every answer has, and the pattern that it is counted by.
fn labelled(mut response: Response, resource: Option<&'static Resource>) -> Response {
    reply::dress(response.headers_mut());
    if let Some(resource) = resource {
        response.extensions_mut().insert(Route(resource.pattern));
    }
    response
}
