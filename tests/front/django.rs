//! What a Django server (1.11, REST framework 3.6, XML parser 1.3) was seen to answer, case by case, beside what pengx
//! answers. Where the two differ the case says why; clients that worked there work here.

use pengx::dialects::pengx::resources::{Endpoint, Resource, Verb};
use pengx::dialects::pengx::{Call, Failure, Reply, Settings, refusal, routes_over};
use pengx::operations::Gate;
use pengx::server::Limits;
use tokio::io::AsyncWriteExt;

use super::raw::{Client, Server};
use super::{App, endpoint};

/// As the oracle had them: a list, an object, a list of numbers, an action, and an echo of the body.
static TABLE: &[Resource] = &[
    Resource { pattern: "/vms/", endpoints: BOTH },
    Resource { pattern: "/vms/:vm/", endpoints: READ },
    Resource { pattern: "/vms/:vm/start/", endpoints: &[endpoint(Verb::Post, |_| Box::pin(done()))] },
    Resource { pattern: "/storlinks/:id/", endpoints: &[endpoint(Verb::Put, |call| Box::pin(echo(call)))] },
    Resource {
        pattern: "/probe/echo/",
        endpoints: &[endpoint(Verb::Get, |_| Box::pin(done())), endpoint(Verb::Post, |call| Box::pin(echo(call)))],
    },
];
const BOTH: &[Endpoint] =
    &[endpoint(Verb::Get, |_| Box::pin(done())), endpoint(Verb::Post, |call| Box::pin(echo(call)))];
const READ: &[Endpoint] =
    &[endpoint(Verb::Get, |_| Box::pin(done())), endpoint(Verb::Delete, |_| Box::pin(async { Ok(Reply::NoContent) }))];

async fn done() -> Result<Reply, Failure> {
    Ok(Reply::done("done"))
}

/// The body as JSON.
async fn echo(mut call: Call) -> Result<Reply, Failure> {
    let body: serde_json::Value = call.body().await?;
    Ok(Reply::done(body.to_string()))
}

const VM: &str = "00000000-0000-4000-9000-000000000000";

async fn server() -> Server {
    let (app, settings) = (App::new(), Settings::default());
    let gate = Gate::new(app.core.clone(), false).unwrap();
    let refusal = refusal(&settings);
    Server::over(app, routes_over(TABLE, gate, settings), refusal, Limits::default()).await
}

/// One request with these bytes as its body.
async fn send(server: &Server, method: &str, path: &str, headers: &str, body: &[u8]) -> super::raw::Answer {
    let mut client: Client = server.connect().await;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}");
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    client.stream.write_all(request.as_bytes()).await.unwrap();
    client.stream.write_all(body).await.unwrap();
    client.answer(method == "HEAD").await
}

/// What was asked, what Django answered, what pengx answers, and the reason where the two differ.
struct Case(&'static str, &'static str, &'static str, u16, u16, &'static str);

const SAME: &str = "";
const UUIDS: &str = "ids are uuids, so another text is no URI";
const HTML: &str = SAME;

#[rustfmt::skip]
const ROUTING: &[Case] = &[
    Case("GET", "/vms/", "", 200, 200, SAME),
    Case("GET", "/vms", "", 301, 301, SAME),
    Case("GET", "/vms?a=1&b=%20x", "", 301, 301, SAME),
    Case("HEAD", "/vms", "", 301, 301, SAME),
    Case("POST", "/vms", "", 301, 200, "a redirected POST would be replayed as GET"),
    Case("PUT", "/storlinks/1", "", 301, 200, "as POST"),
    Case("DELETE", "/vms/00000000-0000-4000-9000-000000000000", "", 301, 204, "as POST"),
    Case("OPTIONS", "/vms", "", 301, 200, "served as if the slash were there"),
    Case("GET", "/nope", "", 404, 404, HTML),
    Case("GET", "/nope/", "", 404, 404, HTML),
    Case("POST", "/nope/", "", 404, 404, HTML),
    Case("GET", "/", "", 404, 404, HTML),
    Case("GET", "/vms//", "", 404, 404, HTML),
    Case("GET", "//vms/", "", 200, 200, SAME),
    Case("GET", "//vms", "", 301, 301, SAME),
    Case("GET", "/vms/../vms/", "", 404, 404, HTML),
    Case("GET", "/vms%2F", "", 200, 200, SAME),
    Case("GET", "/vm%73/", "", 200, 200, SAME),
    Case("GET", "/vms/a%2Fb/", "", 404, 404, HTML),
    Case("GET", "/vms/nope/", "", 404, 404, SAME),
    Case("GET", "/vms/a%20b/", "", 404, 404, SAME),
    Case("GET", "/vms/%zz/", "", 404, 404, SAME),
    Case("GET", "/vms/%ff/", "", 404, 404, SAME),
    Case("GET", "/vms/%00/", "", 404, 404, SAME),
    Case("GET", "/vms/%0a", "", 200, 404, "a newline is no end of a path"),
    Case("GET", "/VMS/", "", 404, 404, HTML),
    Case("PUT", "/storlinks/abc/", "", 404, 404, HTML),
    Case("PUT", "/storlinks/%D9%A3/", "", 204, 404, "digits are ASCII"),
    Case("DELETE", "/vms/", "", 404, 405, "a DELETE without an id never reaches a handler"),
    Case("PUT", "/vms/", "", 405, 405, SAME),
    Case("PATCH", "/vms/", "", 405, 405, SAME),
    Case("GET", "/vms/00000000-0000-4000-9000-000000000000/start/", "", 405, 405, SAME),
    Case("HEAD", "/vms/00000000-0000-4000-9000-000000000000/start/", "", 405, 405, SAME),
    Case("BREW", "/vms/", "", 405, 405, SAME),
    Case("TRACE", "/vms/", "", 405, 405, SAME),
    Case("HEAD", "/vms/", "", 200, 200, SAME),
    Case("HEAD", "/vms/00000000-0000-4000-9000-000000000000/", "", 200, 200, SAME),
    Case("HEAD", "/vms/nope/", "", 404, 404, UUIDS),
    Case("OPTIONS", "/vms/", "", 500, 200, "Django's view had no template for it"),
    Case("POST", "/vms/00000000-0000-4000-9000-000000000000/start/", "X-HTTP-Method-Override: DELETE\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept: application/json\r\n", 406, 406, SAME),
    Case("GET", "/vms/", "Accept: application/xml\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept: text/xml\r\n", 406, 200, "both XML types are accepted, whichever is sent"),
    Case("GET", "/vms/", "Accept: application/xml; charset=euc-kr\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept: */*\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept: application/*\r\n", 200, 200, SAME),
    Case("GET", "/vms/", "Accept:\r\n", 406, 406, SAME),
    Case("GET", "/vms/", "Accept: garbage\r\n", 406, 406, SAME),
    Case("GET", "/nope/", "Accept: application/json\r\n", 404, 404, SAME),
    Case("PUT", "/vms/", "Accept: application/json\r\n", 406, 406, SAME),
    Case("GET", "/vms/?format=xml", "", 200, 200, SAME),
    Case("GET", "/vms/?format=json", "", 404, 404, SAME),
    Case("GET", "/vms/?format=", "", 200, 200, SAME),
    Case("GET", "/vms.xml", "", 404, 200, "every URI has the suffix, as its format=None says"),
    Case("GET", "/vms.xml/", "", 404, 200, "as without the slash"),
    Case("GET", "/vms.json", "", 404, 404, SAME),
];

#[tokio::test]
async fn routing_and_negotiation_are_as_they_were_seen() {
    let server = server().await;
    for Case(method, path, headers, seen, ours, why) in ROUTING {
        assert_eq!(seen != ours, !why.is_empty() && *why != UUIDS, "{method} {path}: the table of this test");
        let answer = send(&server, method, path, headers, b"").await;
        assert_eq!(answer.status, *ours, "{method} {path} {headers}: {answer:?}");
        if answer.status == 405 {
            let allow = answer.header("allow").unwrap();
            assert!(allow.ends_with("OPTIONS") && !allow.is_empty(), "{answer:?}");
        }
        if answer.status >= 400 && *method != "HEAD" {
            answer.failed(*ours, "");
        }
    }
}

#[rustfmt::skip]
const BODIES: &[(&[u8], u16, &str, &str)] = &[
    // The body, the status that was seen, and what it means here: JSON, or empty for a refusal; then why it is another.
    (b"<vm><name>x</name></vm>", 200, r#"{"name":"x"}"#, ""),
    (b"<?xml version='1.0'?><vm><name>x</name></vm>", 200, r#"{"name":"x"}"#, ""),
    (b"<vm><name>x</vm>", 400, "", ""),
    (b"<vm><name>x</na", 400, "", ""),
    (b"name=x", 400, "", ""),
    (b"{\"name\": 1}", 400, "", ""),
    (b"<a/><b/>", 400, "", ""),
    (b" <?xml version='1.0'?><vm/>", 400, "", ""),
    (b"\n <vm><name>x</name></vm>", 200, r#"{"name":"x"}"#, ""),
    (b"<vm><name>a&nbsp;b</name></vm>", 400, "", ""),
    (b"<vm><name>a & b</name></vm>", 400, "", ""),
    (b"<vm a='1' a='2'/>", 400, "", ""),
    (b"<vm><name>\xff</name></vm>", 400, "", ""),
    (b"<vm><name>\x01</name></vm>", 400, "", ""),
    (b"<vm><name>&#1;</name></vm>", 400, "", ""),
    (b"<vm><x:name>a</x:name></vm>", 400, "", ""),
    (b" ", 400, "", ""),
    (b"<anything><name>x</name></anything>", 200, r#"{"name":"x"}"#, ""),
    (b"<vm><n><list-item>0</list-item><list-item>1</list-item></n></vm>", 200, r#"{"n":["0","1"]}"#, ""),
    (b"<vm><n><list-item>0</list-item></n></vm>", 200, r#"{"n":["0"]}"#, ""),
    (b"<vm><n><list-item>0</list-item><x>1</x></n></vm>", 200, r#"{"n":["0","1"]}"#, ""),
    (b"<vm><n><x>1</x><list-item>0</list-item></n></vm>", 200, r#"{"n":{"list-item":"0","x":"1"}}"#, ""),
    (b"<vm><n></n></vm>", 200, r#"{"n":null}"#, ""),
    (b"<vm><list-item>0</list-item></vm>", 200, r#"["0"]"#, ""),
    (b"<vm><a>1</a><a>2</a></vm>", 200, r#"{"a":"2"}"#, ""),
    (b"<vm id='7'><a b='c'>1</a></vm>", 200, r#"{"a":"1"}"#, ""),
    (b"<vm>text</vm>", 200, r#""text""#, ""),
    (b"<vm/>", 200, "null", ""),
    (b"<vm>text<a>1</a>more</vm>", 200, r#"{"a":"1"}"#, ""),
    (b"<vm><a>  x  </a></vm>", 200, r#"{"a":"x"}"#, "trimmed, as the serializer did right after"),
    (b"<vm><a>x<!-- c -->y</a></vm>", 200, r#"{"a":"xy"}"#, ""),
    (b"<vm><a><!-- c -->y</a></vm>", 200, r#"{"a":"y"}"#, ""),
    (b"<vm><a>x<?pi?>y</a></vm>", 200, r#"{"a":"xy"}"#, ""),
    (b"<vm><a><![CDATA[<x> & y]]></a></vm>", 200, r#"{"a":"<x> & y"}"#, ""),
    (b"<vm><a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;</a></vm>", 200, r#"{"a":"<&>\"'AB"}"#, ""),
    (b"<vm><a>007</a></vm>", 200, r#"{"a":"007"}"#, "text is kept, and made a number only where one belongs"),
    (b"<vm><a>1e5</a></vm>", 200, r#"{"a":"1e5"}"#, "as 007: a VM may have this name"),
    (b"<vm><a>True</a></vm>", 200, r#"{"a":"True"}"#, ""),
    (b"<vm><a>2017-07-26 15:04:05</a></vm>", 200, r#"{"a":"2017-07-26 15:04:05"}"#, ""),
    (b"<!DOCTYPE vm><vm><a>1</a></vm>", 200, r#"{"a":"1"}"#, ""),
    (b"<!DOCTYPE vm [<!ENTITY e 'x'>]><vm><a>&e;</a></vm>", 400, "", ""),
    (b"<!DOCTYPE vm [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><vm><a>&e;</a></vm>", 400, "", ""),
    (b"\xef\xbb\xbf<vm><a>1</a></vm>", 200, r#"{"a":"1"}"#, ""),
    ("<vm><a>가상</a></vm>".as_bytes(), 200, r#"{"a":"가상"}"#, ""),
    (b"<?xml version='1.0' encoding='euc-kr'?><vm><a>\xb0\xa1\xbb\xf3</a></vm>", 400, r#"{"a":"가상"}"#, "the declaration is believed"),
    ("<?xml version='1.0' encoding='euc-kr'?><vm><a>가상</a></vm>".as_bytes(), 200, r#"{"a":"가상"}"#, ""),
    ("<?xml version='1.0' encoding='no-such'?><vm><a>가</a></vm>".as_bytes(), 200, r#"{"a":"가"}"#, ""),
    (b"\xff\xfe<\0v\0>\0<\0a\0>\0\x00\xac<\0/\0a\0>\0<\0/\0v\0>\0", 200, r#"{"a":"가"}"#, ""),
    (b"\xfe\xff\0<\0v\0>\0<\0a\0>\xac\x00\0<\0/\0a\0>\0<\0/\0v\0>", 200, r#"{"a":"가"}"#, ""),
    (b"<?xml version='1.1'?><vm><a>1</a></vm>", 200, r#"{"a":"1"}"#, ""),
];

#[tokio::test]
async fn bodies_mean_what_they_meant() {
    let server = server().await;
    for (body, seen, ours, why) in BODIES {
        let shown = String::from_utf8_lossy(body);
        let answer = send(&server, "POST", "/probe/echo/", "Content-Type: application/xml\r\n", body).await;
        if ours.is_empty() {
            answer.failed(400, "the body cannot be read");
            assert_eq!(*seen, 400, "{shown}");
        } else {
            let text = ours.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
            let text = text.replace('\'', "&#39;");
            assert_eq!(answer.status, 200, "{shown}: {answer:?}");
            assert!(answer.body.contains(&format!("<message>{text}</message>")), "{shown}: {}", answer.body);
            assert!(*seen == 200 || !why.is_empty(), "{shown}");
        }
    }
}

#[tokio::test]
async fn media_types_and_charsets_are_as_they_were_seen() {
    let server = server().await;
    let xml = b"<v><a>1</a></v>".as_slice();
    let korean = b"<v><a>\xb0\xa1</a></v>".as_slice();
    // Content-Type, body, what was seen, what is answered.
    for (kind, body, seen, ours) in [
        ("application/xml", xml, 200, 200),
        ("application/xml; charset=utf-8", xml, 200, 200),
        ("APPLICATION/XML", xml, 200, 200),
        ("*/*", xml, 200, 200),
        ("application/*", xml, 200, 200),
        // More than Django took.
        ("text/xml", xml, 415, 200),
        ("application/atom+xml", xml, 415, 200),
        ("application/xml; charset=euc-kr", korean, 400, 200),
        ("application/xml; charset=iso-8859-1", b"<v><a>\xe9</a></v>", 200, 200),
        ("application/xml; charset=utf-16le", b"<\0v\0>\0<\0a\0>\x001\0<\0/\0a\0>\0<\0/\0v\0>\0", 200, 200),
        ("application/xml; charset=no-such", xml, 200, 200),
        ("application/json", xml, 415, 415),
        ("application/x-www-form-urlencoded", b"a=1", 415, 200),
        ("garbage", xml, 415, 415),
        ("text/plain", xml, 415, 415),
    ] {
        let answer = send(&server, "POST", "/probe/echo/", &format!("Content-Type: {kind}\r\n"), body).await;
        assert_eq!(answer.status, ours, "{kind}, which Django answered with {seen}: {answer:?}");
    }
    // A handler that wants no body looks at none.
    let start = format!("/vms/{VM}/start/");
    for (kind, body) in [("text/plain", xml), ("application/xml", b"<x".as_slice())] {
        assert_eq!(send(&server, "POST", &start, &format!("Content-Type: {kind}\r\n"), body).await.status, 200);
    }
    for kind in ["", "Content-Type: application/xml\r\n", "Content-Type: text/plain\r\n"] {
        assert_eq!(send(&server, "POST", "/probe/echo/", kind, b"").await.status, 200, "{kind:?}");
    }
    for method in ["PUT", "PATCH"] {
        send(&server, method, "/vms/", "Content-Type: application/xml\r\n", b"<x").await.failed(405, method);
    }
}
