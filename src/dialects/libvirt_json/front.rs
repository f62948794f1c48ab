//! From a request to its handler, in the order of Starlette: CORS, path, method, parameters; and before all else but the
//! first, who asks.

use percent_encoding::percent_decode_str;
use tokio::sync::OnceCell;
use warp::http::header::LOCATION;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::{Failure, TABLE, cors, integer, machine, power, vms};
use crate::config::LibvirtJson;
use crate::dialects::ask::{self, Ask, Bodies};
use crate::dialects::open_door::OpenDoor;
use crate::dialects::table::{self, Resource};
use crate::dialects::{Mounted, RequestId, Route, User};
use crate::error::Error;
use crate::model::Pm;
use crate::operations::{Core, Gate, pm};

pub fn mount(gate: Gate, settings: LibvirtJson, bodies: Bodies) -> Mounted {
    let door = OpenDoor::new(gate, settings.open.clone());
    let front = std::sync::Arc::new(Front { door, settings, here: OnceCell::new() });
    let routes = ask::serve(bodies, move |ask| {
        let front = front.clone();
        async move { front.answer(ask).await }
    });
    Mounted { routes, knows: table::knows(TABLE) }
}

/// What all requests share.
struct Front {
    door: OpenDoor,
    settings: LibvirtJson,
    /// This host: all that this API tells of.
    here: OnceCell<Pm>,
}

/// One request, as a handler sees it.
pub(super) struct Call<'a> {
    pub(super) core: Core,
    pub(super) ask: &'a Ask,
    pub(super) settings: &'a LibvirtJson,
    here: &'a OnceCell<Pm>,
}

/// For metrics and the log.
#[derive(Default)]
struct Notes {
    user: Option<User>,
    route: Option<Route>,
}

impl Front {
    async fn answer(&self, ask: Ask) -> Response {
        let mut notes = Notes::default();
        let preflight = if self.door.cors() { cors::preflight(&ask.method, &ask.headers) } else { None };
        let mut response = match preflight {
            Some(response) => response,
            None => self.handle(&ask, &mut notes).await.unwrap_or_else(|failure| {
                let request = ask.arrival.as_ref().map(|arrival| &arrival.id);
                failure.into_response(request.map_or("", RequestId::as_str))
            }),
        };
        if self.door.cors() {
            cors::mark(response.headers_mut(), &ask.headers);
        }
        let extensions = response.extensions_mut();
        notes.user.map(|user| extensions.insert(user));
        notes.route.map(|route| extensions.insert(route));
        response
    }

    async fn handle(&self, ask: &Ask, notes: &mut Notes) -> Result<Response, Failure> {
        let core = self.door.enter(ask).await?;
        notes.user = Some(User(core.caller().to_string()));
        let path = percent_decode_str(&ask.path).decode_utf8().map_err(|_| Failure::UnknownPath)?;
        let Some(resource) = at(&path) else {
            let resource = at(path.trim_end_matches('/')).filter(|found| self.disabled(found).is_none());
            notes.route = resource.map(|resource| Route(resource.pattern));
            return resource.and_then(|resource| unslashed(ask, resource)).ok_or(Failure::UnknownPath);
        };
        notes.route = Some(Route(resource.pattern));
        if let Some(status) = self.disabled(resource) {
            return Err(Failure::Disabled(status));
        }
        let method = resource.methods.first().copied().unwrap_or_default();
        if ask.method.as_str() != method {
            return Err(Failure::Method(method));
        }
        let call = Call { core, ask, settings: &self.settings, here: &self.here };
        match resource.pattern {
            "/" => machine::name(&call).await,
            "/host" => machine::data(&call).await,
            "/vms" => vms::list(&call).await,
            "/vm_info" => vms::info(&call).await,
            "/vm_ip" => vms::addresses(&call).await,
            "/vm_xmldesc" => vms::description(&call).await,
            "/vm_viewer" => vms::viewer(&call).await,
            "/vm_state" => vms::state(&call).await,
            "/vm_status" => vms::status(&call).await,
            "/vm_status_lookup" => vms::status_lookup(&call),
            "/vm_screenshot" => vms::screenshot(&call).await,
            "/vm_start" => power::start(&call).await,
            "/vm_stop" => power::stop(&call).await,
            "/openapi.json" => machine::openapi(&call),
            other => Err(Error::internal("an endpoint has no handler").context(other).into()),
        }
    }

    fn disabled(&self, resource: &Resource) -> Option<StatusCode> {
        let (_, status) = self.settings.disabled.iter().find(|(endpoint, _)| endpoint == resource.pattern)?;
        StatusCode::from_u16(*status).ok()
    }
}

fn at(path: &str) -> Option<&'static Resource> {
    TABLE.iter().find(|resource| resource.pattern == path)
}

/// To the same without the slash at its end, for every method.
fn unslashed(ask: &Ask, resource: &Resource) -> Option<Response> {
    let query = ask.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("{}{}{query}", ask.base(), resource.pattern);
    let mut response = Response::default();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).ok()?);
    Some(response)
}

impl Call<'_> {
    pub(super) async fn here(&self) -> Result<&Pm, Error> {
        self.here.get_or_try_init(async || self.core.read(|core| Ok(pm::this(core)?.pm)).await).await
    }

    pub(super) fn required(&self, parameter: &'static str) -> Result<String, Failure> {
        self.ask.query(parameter).ok_or(Failure::Missing(parameter))
    }

    pub(super) fn integer(&self, parameter: &'static str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.ask.query(parameter) else { return Ok(None) };
        match integer::parse(&text) {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::NotAnInteger { parameter, text }),
        }
    }
}
