//! The screen of a VM, in a WebSocket. Not in the manual.
//!
//! A web page can send no credentials when it opens a WebSocket: whoever has some gets a ticket for it, which the URL carries.

use askama::Template;
use warp::http::HeaderMap;
use warp::http::header::HOST;

use super::{Call, Failure, Reply, Settings};
use crate::dialects::console;
use crate::operations::console as operation;

/// The key of the query.
pub(super) const TICKET: &str = "ticket";

/// POST `/vms/:vm/console/`: 201 with a ticket.
pub async fn create(call: Call) -> Result<Reply, Failure> {
    let ticket = operation::ticket(&call.core, call.vm()?).await?;
    let secure = call.arrival.as_ref().is_some_and(|arrival| arrival.tls);
    let base = base(call.settings(), secure, &call.headers);
    let slash = if call.path.ends_with('/') { "" } else { "/" };
    let text = ticket.text.reveal();
    let url = format!("{base}{}{slash}?{TICKET}={text}", call.path);
    Reply::created(&ConsoleView { ticket: text, url, expires: call.style().time(&ticket.expires).to_string() })
}

/// GET `/vms/:vm/console/` as a WebSocket; `?ticket` stands for credentials.
pub async fn join(mut call: Call) -> Result<Reply, Failure> {
    let Some(ws) = call.ws.take() else { return Err(Failure::UpgradeRequired) };
    let screen = console::open(&call.core, call.vm()?).await?.paced(call.settings().console);
    let subprotocol = console::subprotocol(&call.headers);
    Ok(Reply::Upgraded(screen.serve(ws, subprotocol, call.arrival.as_ref())))
}

/// `ws://host:port`, where clients find the root; without a slash at the end.
fn base(settings: &Settings, secure: bool, headers: &HeaderMap) -> String {
    let scheme = |secure| if secure { "wss" } else { "ws" };
    match &settings.public_url {
        Some(public) => format!("{}://{}{}", scheme(public.secure), public.host, public.path),
        None => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            format!("{}://{host}", scheme(secure))
        }
    }
}

#[derive(Template)]
#[template(path = "pengx/console.xml")]
struct ConsoleView<'a> {
    ticket: &'a str,
    url: String,
    expires: String,
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn the_url_is_where_the_client_has_found_us_or_where_the_site_says() {
        let of = |public: Option<&str>, secure, host: &'static str| {
            let settings = Settings { public_url: public.map(|url| url.parse().unwrap()), ..Settings::default() };
            let mut headers = HeaderMap::new();
            if !host.is_empty() {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            base(&settings, secure, &headers)
        };
        assert_eq!(of(None, false, "10.0.0.1:8000"), "ws://10.0.0.1:8000");
        assert_eq!(of(None, true, "vm.example"), "wss://vm.example");
        assert_eq!(of(None, false, ""), "ws://localhost");
        assert_eq!(of(Some("https://panel.example/a/"), false, "10.0.0.1:8000"), "wss://panel.example/a");
        assert_eq!(of(Some("http://panel.example:81"), true, "x"), "ws://panel.example:81");
    }
}
