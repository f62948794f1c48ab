//! The front door over real connections, in raw HTTP/1.1: what a client sees, byte for byte where it matters.

mod django;
mod raw;
mod refused;

use std::time::Duration;

use pengx::dialects::pengx::fields::Field;
use pengx::dialects::pengx::resources::{Endpoint, Handler, Resource, Verb};
use pengx::dialects::pengx::schema::answers;
use pengx::dialects::pengx::{Call, Failure, Reply, Settings, refusal, routes, routes_over};
use pengx::error::Error;
use pengx::model::TaskId;
use pengx::operations::Gate;

use pengx::server::{Limits, Stopped};
use raw::{PATIENCE, Server};

use crate::harness::app::App;
use tokio::net::TcpStream;

const ID: &str = "bed05d84-7c44-4720-9588-57cbd8ecef8c";

const fn endpoint(method: Verb, handler: Handler) -> Endpoint {
    Endpoint { row: None, method, handler, takes: None, gives: &answers::ROOT }
}

/// Handlers that show what the native API's own, which need a core, do not yet.
static TABLE: &[Resource] = &[
    Resource {
        pattern: "/vms/:vm/",
        endpoints: &[
            endpoint(Verb::Get, |call| Box::pin(show(call))),
            endpoint(Verb::Delete, |_| Box::pin(async { Ok(Reply::NoContent) })),
        ],
    },
    Resource { pattern: "/vms/", endpoints: &[endpoint(Verb::Post, |call| Box::pin(read(call)))] },
    Resource {
        pattern: "/storlinks/:id/",
        endpoints: &[
            endpoint(Verb::Post, |_| Box::pin(async { Ok(Reply::done("ignored")) })),
            endpoint(Verb::Put, |_| Box::pin(async { panic!("a defect") })),
            endpoint(Verb::Get, |_| Box::pin(broken())),
        ],
    },
    Resource { pattern: "/tasks/:task/", endpoints: &[endpoint(Verb::Get, |call| Box::pin(accepted(call)))] },
    Resource { pattern: "/pmpperf/", endpoints: &[endpoint(Verb::Get, |_| Box::pin(slow()))] },
];

async fn show(call: Call) -> Result<Reply, Failure> {
    let peer = call.arrival.as_ref().is_some_and(|a| a.peer.ip().is_loopback());
    Ok(Reply::done(format!("{} {:?} {:?} {peer}", call.vm()?, call.shape, call.wait()?)))
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(default)]
    name: Field,
}

async fn read(mut call: Call) -> Result<Reply, Failure> {
    let body: Body = call.body().await?;
    Ok(Reply::made(format!("{:?} {}", body.name, call.respond_async())))
}

async fn broken() -> Result<Reply, Failure> {
    Err(Error::internal("secret of row 7").into())
}

async fn accepted(call: Call) -> Result<Reply, Failure> {
    let task: TaskId = call.task()?;
    Ok(Reply::Accepted { task })
}

static ENTERED: tokio::sync::Notify = tokio::sync::Notify::const_new();
static LEAVE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);

async fn slow() -> Result<Reply, Failure> {
    ENTERED.notify_one();
    LEAVE.acquire().await.unwrap().forget();
    Ok(Reply::done("at last"))
}

async fn start() -> Server {
    start_with(Settings { body_limit: 1000, ..Settings::default() }, Limits::default()).await
}

async fn start_with(settings: Settings, limits: Limits) -> Server {
    let app = App::new();
    let gate = Gate::new(app.core.clone(), false).unwrap();
    let refusal = refusal(&settings);
    Server::over(app, routes_over(TABLE, gate, settings), refusal, limits).await
}

#[tokio::test]
async fn reads_answer_with_xml() {
    let server = start().await;
    let answer = server.ask(&format!("GET /vms/{}/", ID.to_uppercase())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/xml; charset=utf-8"));
    assert_eq!(answer.header("allow"), Some("GET, DELETE, HEAD, OPTIONS"));
    assert!(answer.header("x-request-id").is_some_and(|id| id.len() > 9));
    assert_eq!(
        answer.body,
        format!("<root>\n  <result>success</result>\n  <message>{ID} V2 None true</message>\n</root>\n")
    );
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let server = start().await;
    let mut client = server.connect().await;
    let get = client.ask(&format!("GET /vms/{ID}/")).await;
    let head = client.ask(&format!("HEAD /vms/{ID}/")).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), get.header("content-length"));
    // Nothing of a body lies in the connection.
    assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.body, get.body);
    assert_eq!(server.ask("HEAD /vms/").await.status, 405);
}

#[tokio::test]
async fn options_describes() {
    let server = start().await;
    let answer = server.ask("OPTIONS /vms").await;
    assert_eq!((answer.status, answer.header("allow")), (200, Some("POST, OPTIONS")));
    assert!(answer.body.starts_with("<root>\n  <name>/vms/</name>\n"), "{}", answer.body);
    assert!(answer.body.ends_with("</root>\n"));
    server.ask("OPTIONS *").await.failed(404, "nothing at this URI");
}

#[tokio::test]
async fn a_method_that_is_not_there() {
    let server = start().await;
    for method in ["PATCH", "PUT", "TRACE", "BREW", "get"] {
        let answer = server.ask(&format!("{method} /vms/\nContent-Type: text/plain\n\n<not even xml")).await;
        answer.failed(405, method);
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    }
    let answer = server.ask("DELETE /vms/").await;
    answer.failed(405, "DELETE is not allowed here");
}

#[tokio::test]
async fn a_slash_is_added() {
    let server = start().await;
    for (path, location) in [
        (format!("/vms/{ID}"), format!("/vms/{ID}/")),
        (format!("/api/v1/vms/{ID}?a=%20&b"), format!("/api/v1/vms/{ID}/?a=%20&b")),
        (format!("//vms/{ID}"), format!("/vms/{ID}/")),
        (format!("/vm%73/{ID}"), format!("/vm%73/{ID}/")),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(&format!("{method} {path}\nAccept: application/json")).await;
            assert_eq!((answer.status, answer.header("location")), (301, Some(location.as_str())), "{path}");
            assert_eq!((answer.body.as_str(), answer.header("allow")), ("", None));
        }
    }
    assert_eq!(server.ask(&format!("DELETE /vms/{ID}")).await.status, 204);
    assert_eq!(server.ask("POST /vms\nContent-Type: text/xml\n\n<vm/>").await.status, 201);
    server.ask("GET /nope").await.failed(404, "nothing");
}

#[tokio::test]
async fn paths_are_matched_decoded() {
    let server = start().await;
    for path in [
        format!("/vm%73/{ID}/"),
        format!("/vms/{ID}%2F"),
        format!("//vms/{ID}/"),
        format!("/vms/{ID}.xml"),
        format!("/vms/{ID}/?format=xml"),
    ] {
        assert_eq!(server.ask(&format!("GET {path}")).await.status, 200, "{path}");
    }
    for path in [
        "/",
        "/nope/",
        "/VMS/",
        "/vms//",
        "/vms.json",
        "/vms/%zz/",
        "/vms/%ff/",
        "/vms/%00/",
        "/vms/%0a",
        "/vms/a%2Fb/",
        "/vms/../vms/",
        "/vms/7/",
        "/vms/%",
    ] {
        server.ask(&format!("GET {path}\nAccept: application/json")).await.failed(404, "nothing at this URI");
    }
    server.ask(&format!("GET /vms/{ID}/?format=json")).await.failed(404, "nothing at this URI");
}

#[tokio::test]
async fn prefixes() {
    let server = start().await;
    for (prefix, shape) in [
        ("", "V2"),
        ("/api", "V2"),
        ("/api/v1", "V1"),
        ("/api/v2", "V2"),
        ("/apiv2", "V2"),
        ("/v1", "V1"),
        ("/v2", "V2"),
    ] {
        let answer = server.ask(&format!("GET {prefix}/vms/{ID}/")).await;
        assert!(answer.status == 200 && answer.body.contains(shape), "{prefix}: {answer:?}");
    }
    server.ask(&format!("GET /v3/vms/{ID}/")).await.failed(404, "nothing");
}

#[tokio::test]
async fn accept_and_prefer_and_wait() {
    let server = start().await;
    server.ask(&format!("GET /vms/{ID}/\nAccept: application/json")).await.failed(406, "Accept");
    server.ask("PATCH /vms/\nAccept: image/png").await.failed(406, "Accept");
    assert_eq!(server.ask(&format!("GET /vms/{ID}/\nAccept: text/xml")).await.status, 200);
    let answer =
        server.ask("POST /vms/\nPrefer: respond-async\nContent-Type: text/xml\n\n<vm><name>a</name></vm>").await;
    assert!(answer.body.contains("true"), "{answer:?}");
    for (query, wait) in [("?wait", "Some(60s)"), ("?wait=5", "Some(5s)"), ("?wait=9999", "Some(60s)")] {
        assert!(server.ask(&format!("GET /vms/{ID}/{query}")).await.body.contains(wait), "{query}");
    }
    server.ask(&format!("GET /vms/{ID}/?wait=x")).await.failed(400, "wait: must be a whole number");
    let accepted = server.ask(&format!("GET /tasks/{ID}/")).await;
    assert_eq!((accepted.status, accepted.header("location")), (202, Some(format!("/tasks/{ID}/").as_str())));
}

#[tokio::test]
async fn a_204_has_no_body_and_no_length() {
    let server = start().await;
    let mut client = server.connect().await;
    let answer = client.ask(&format!("DELETE /vms/{ID}/")).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.header("transfer-encoding")), (204, None, None));
    assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.status, 200);
}

#[tokio::test]
async fn bodies() {
    let server = start().await;
    let named = "<message>Text(&quot;a&quot;) false</message>";
    for request in [
        "POST /vms/\nContent-Type: application/xml\n\n<vm><name>a</name></vm>",
        "POST /vms/\n\n<vm><name>a</name></vm>",
        "POST /vms/\nContent-Type: application/x-www-form-urlencoded\n\nname=a",
        "POST /vms/\nContent-Type: multipart/form-data; boundary=B\n\n--B\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\na\r\n--B--\r\n",
        "POST /vms/\nTransfer-Encoding: chunked\nContent-Length-Is: chunked\nContent-Type: text/xml\n\n17\r\n<vm><name>a</name></vm>\r\n0\r\n\r\n",
    ] {
        let answer = server.ask(request).await;
        assert!(answer.status == 201 && answer.body.contains(named), "{request}: {answer:?}");
    }
    assert!(server.ask("POST /vms/").await.body.contains("Absent"));
    server.ask("POST /vms/\nContent-Type: application/json\n\n{}").await.failed(415, "application/json");
    server.ask("POST /vms/\n\nname=a").await.failed(415, "application/xml");
    server.ask("POST /vms/\nContent-Type: text/xml\n\n<vm>").await.failed(400, "the body cannot be read");
    server.ask("POST /vms/\nContent-Type: text/xml\n\n<vm>text</vm>").await.failed(400, "elements are needed");
    server
        .ask("POST /vms/\nContent-Type: text/xml\n\n<!DOCTYPE vm [<!ENTITY a 'b'>]><vm>&a;</vm>")
        .await
        .failed(400, "DOCTYPE");
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let server = start().await;
    let padded = |n: usize| format!("<vm><name>a</name></vm>{}", " ".repeat(n - 23));
    let mut client = server.connect().await;
    let fits = client.ask(&format!("POST /vms/\nContent-Type: text/xml\n\n{}", padded(1000))).await;
    assert_eq!(fits.status, 201);
    let large = client.ask(&format!("POST /vms/\nContent-Type: text/xml\n\n{}", padded(1001))).await;
    large.failed(413, "larger than 1000 bytes");
    // The rest was read away: the connection is as good as new.
    assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    let chunk = "<!--".to_owned() + &"x".repeat(2000);
    let chunked = format!(
        "POST /vms/\nTransfer-Encoding: chunked\nNot-Content-Length: 1\nContent-Type: text/xml\n\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    client.ask(&chunked).await.failed(413, "larger");
    assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.status, 200);
}

#[tokio::test]
async fn a_giant_is_refused_before_it_is_sent() {
    let server = start().await;
    let mut client = server.connect().await;
    let request = "POST /vms/\nContent-Type: text/xml\nExpect: 100-continue\nContent-Length: 99999999";
    let answer = client.ask(request).await;
    answer.failed(413, "larger");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let server = start().await;
    let mut client = server.connect().await;
    let go_on = client.ask("POST /vms/\nContent-Type: text/xml\nExpect: 100-continue\nContent-Length: 5").await;
    assert_eq!(go_on.status, 100);
    client.send("<vm/>").await;
    assert_eq!(client.answer(false).await.status, 201);
}

#[tokio::test]
async fn an_unread_body_does_not_hurt_the_connection() {
    let server = start().await;
    let mut client = server.connect().await;
    let body = "GET /vms/ HTTP/1.1\r\n\r\n".repeat(20_000);
    for request in ["POST /storlinks/7/", "PATCH /vms/", "POST /nope/"] {
        let answer = client.ask(&format!("{request}\nContent-Type: text/plain\n\n{body}")).await;
        assert_ne!(answer.header("connection"), Some("close"), "{request}");
        let next = client.ask(&format!("GET /vms/{ID}/")).await;
        assert_eq!(next.status, 200, "{request}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start().await;
    let mut client = server.connect().await;
    let get = format!("GET /vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST /storlinks/7/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc";
    let missing = "GET /nope/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(&[&get, post, missing, &get].concat()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.answer(false).await.status);
    }
    assert_eq!(statuses, [200, 200, 404, 200]);
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let settings = Settings { body_deadline: Duration::from_millis(50), ..Settings::default() };
    let server = start_with(settings, Limits::default()).await;
    let mut client = server.connect().await;
    let answer = client.ask("POST /vms/\nContent-Type: text/xml\nContent-Length: 100\n\n<vm>").await;
    answer.failed(408, "did not arrive within 0.05 s");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn silent_and_half_sent_requests_lose_their_connection() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start_with(Settings::default(), limits).await;
    for sent in ["", "P", "PRI * HT", "GET /vms/ HTTP/1.1\r\nHost: loc"] {
        let mut client = server.connect().await;
        client.send(sent).await;
        let text = client.end().await;
        assert!(!text.contains("200 OK"), "{sent:?}: {text}");
    }
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    assert_eq!(idle.end().await, "");
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_end_and_then_cuts() {
    let limits = Limits { drain: PATIENCE, ..Limits::default() };
    let mut server = start_with(Settings::default(), limits).await;
    let mut idle = server.connect().await;
    assert_eq!(idle.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    let mut busy = server.connect().await;
    busy.send("GET /pmpperf/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::timeout(PATIENCE, ENTERED.notified()).await.unwrap();
    server.stop();
    // The idle connection goes at once, while the busy one stays.
    assert_eq!(idle.end().await, "");
    assert!(!server.running.is_finished());
    assert!(TcpStream::connect(&server.address).await.is_err());
    LEAVE.add_permits(1);
    let answer = busy.answer(false).await;
    assert!(answer.body.contains("at last"), "{answer:?}");
    assert_eq!(server.stopped().await, Stopped { cut: 0 });

    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let mut server = start_with(Settings::default(), limits).await;
    let mut busy = server.connect().await;
    busy.send("GET /pmpperf/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::timeout(PATIENCE, ENTERED.notified()).await.unwrap();
    server.stop();
    assert_eq!(server.stopped().await, Stopped { cut: 1 });
    assert_eq!(busy.end().await, "");
}

#[tokio::test]
async fn defects_are_answered_and_keep_their_secrets() {
    let server = start().await;
    let mut client = server.connect().await;
    let answer = client.ask("GET /storlinks/7/\nX-Request-Id: mine-1").await;
    answer.failed(500, "pengx met an error of its own");
    assert!(!answer.body.contains("row 7"));
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    client.ask("PUT /storlinks/7/").await.failed(500, "pengx met an error of its own");
    let odd = client.ask("GET /storlinks/7/\nX-Request-Id: a b\"c").await;
    assert_ne!(odd.header("x-request-id"), Some("a b\"c"));
}

#[tokio::test]
async fn web_pages_of_other_sites_are_refused() {
    let server = start().await;
    server.ask(&format!("DELETE /vms/{ID}/\nOrigin: http://evil.example")).await.failed(403, "Origin");
    server.ask(&format!("DELETE /vms/{ID}/\nSec-Fetch-Site: cross-site")).await.failed(403, "other sites");
    // The helper sends a Host of its own: two are one too many.
    server.ask(&format!("GET /vms/{ID}/\nHost: localhost")).await.failed(403, "loopback");
    for (head, status) in [
        (format!("GET /vms/{ID}/ HTTP/1.1\r\nHost: rebound.example\r\n"), 403),
        (format!("GET http://rebound.example/vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n"), 403),
        (format!("GET http://127.0.0.1:80/vms/{ID}/ HTTP/1.1\r\nHost: rebound.example\r\n"), 200),
        (format!("GET /vms/{ID}/ HTTP/1.1\r\n"), 200),
        (format!("GET /vms/{ID}/ HTTP/1.0\r\n"), 200),
    ] {
        let mut client = server.connect().await;
        client.send(&format!("{head}\r\n")).await;
        assert_eq!(client.answer(false).await.status, status, "{head}");
    }
}

#[tokio::test]
async fn rows_of_later_releases_say_so() {
    let app = App::new();
    let gate = Gate::new(app.core.clone(), false).unwrap();
    let settings = Settings::default();
    let refusal = refusal(&settings);
    let server = Server::over(app, routes(gate, settings), refusal, Limits::default()).await;
    server
        .ask(&format!("POST /vms/{ID}/migrate/"))
        .await
        .failed(501, "POST /vms/:vm/migrate/ is not available in this release");
    let answer = server.ask(&format!("PATCH /templates/{ID}/")).await;
    answer.failed(405, "PATCH");
    assert_eq!(answer.header("allow"), Some("GET, PUT, DELETE, HEAD, OPTIONS"));
}
