//! What never becomes a request: heads that hyper cannot read, and connections above the limit. Each gets a document.

use tokio::io::AsyncWriteExt;

use super::raw::Client;
use super::*;

/// Large enough that a URI can be too long before the headers are.
const HEADER_BYTES: usize = 256 << 10;

/// What is sent, the status, and words of the sentence.
fn unreadable() -> Vec<(String, u16, &'static str)> {
    let get = "GET /vms/ HTTP/1.1\r\nHost: localhost\r\n";
    let post = "POST /vms/ HTTP/1.1\r\nHost: localhost\r\n";
    let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    vec![
        ("GARBAGE\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("GET /vms/ HTTP/9.9\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("GET /v\0ms/ HTTP/1.1\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("GET http://[ HTTP/1.1\r\n\r\n".to_owned(), 400, "cannot be read"),
        (format!("{get}X: a\0b\r\n\r\n"), 400, "cannot be read"),
        (format!("{get}no colon\r\n\r\n"), 400, "cannot be read"),
        (format!("{post}Content-Length: x\r\n\r\n"), 400, "cannot be read"),
        (format!("{post}Content-Length: -1\r\n\r\n"), 400, "cannot be read"),
        (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 400, "cannot be read"),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 400, "cannot be read"),
        (format!("{get}{many}\r\n"), 431, "more than 100"),
        (format!("{get}X: {}\r\n\r\n", "x".repeat(3 * HEADER_BYTES)), 431, "larger than 262144 bytes"),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(66_000)), 414, "longer than 65534 bytes"),
    ]
}

/// Reads the document, and that nothing comes after it.
async fn refused(client: &mut Client, status: u16, words: &str, case: &str) {
    let answer = client.answer(false).await;
    assert_eq!(answer.status, status, "{case:.60}: {answer:?}");
    answer.failed(status, words);
    assert_eq!(answer.header("connection"), Some("close"), "{case:.60}");
    assert!(answer.header("x-request-id").is_some_and(|id| id.len() > 9), "{case:.60}: {answer:?}");
    assert!(
        status >= 500 || answer.header("date").is_some_and(|date| date.ends_with(" GMT")),
        "{case:.60}: {answer:?}"
    );
    assert_eq!(client.end().await, "", "{case:.60}");
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_refused_with_a_document() {
    let server = start_with(Settings::default(), Limits { header_bytes: HEADER_BYTES, ..Limits::default() }).await;
    for (head, status, words) in unreadable() {
        let mut client = server.connect().await;
        client.send(&head).await;
        refused(&mut client, status, words, &head).await;
        // After another request on the same connection.
        let mut client = server.connect().await;
        assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.status, 200);
        client.send(&head).await;
        refused(&mut client, status, words, &head).await;
    }
    assert_eq!(server.ask(&format!("GET /vms/{ID}/")).await.status, 200);
}

#[tokio::test]
async fn requests_before_an_unreadable_one_in_a_pipeline_keep_their_answers() {
    let server = start_with(Settings::default(), Limits { header_bytes: HEADER_BYTES, ..Limits::default() }).await;
    let get = format!("GET /vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = "POST /vms/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: text/xml\r\n\r\n5\r\n<vm/>\r\n0\r\n\r\n";
    let delete = format!("DELETE /vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = format!("HEAD /vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (bad, status, words) in unreadable() {
        for (good, answer, head_only) in
            [(&*get, 200, false), (post, 201, false), (&*delete, 204, false), (&*head, 200, true)]
        {
            let mut client = server.connect().await;
            client.send(&format!("{good}{bad}")).await;
            assert_eq!(client.answer(head_only).await.status, answer, "{bad:.60}");
            refused(&mut client, status, words, &bad).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_has_the_words_of_the_settings() {
    let settings = Settings { failure: "NG".to_owned(), ..Settings::default() };
    let server = start_with(settings, Limits { connections: 1, ..Limits::default() }).await;
    let mut client = server.connect().await;
    client.send("GARBAGE\r\n\r\n").await;
    assert!(client.answer(false).await.body.starts_with("<root>\n  <result>NG</result>\n  <message>"));
    // It still has the only place.
    let above = server.connect().await.answer(false).await;
    assert!(above.status == 503 && above.body.contains("<result>NG</result>"), "{above:?}");
}

#[tokio::test]
async fn an_answer_that_looks_like_a_refusal_is_left_alone() {
    let server = start().await;
    let mut client = server.connect().await;
    // Its body ends in the middle: the answer is ours, 400, and the connection closes after it.
    client.send("POST /vms/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: text/xml\r\n\r\nzz\r\n").await;
    let answer = client.answer(false).await;
    answer.failed(400, "it broke off");
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_reads_its_refusal() {
    let server = start().await;
    let mut client = server.connect().await;
    client.send("GARBAGE\r\n\r\n").await;
    // Unread bytes would make the kernel answer with a reset, which destroys what was not read yet.
    for _ in 0..50 {
        client.stream.write_all(&[b'x'; 10_000]).await.ok();
    }
    client.answer(false).await.failed(400, "cannot be read");
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_at_once() {
    let server = start_with(Settings::default(), Limits { connections: 2, ..Limits::default() }).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    }
    let mut silent = server.connect().await;
    let mut asking = server.connect().await;
    asking.send(&format!("GET /vms/{ID}/ HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    for client in [&mut silent, &mut asking] {
        let answer = client.answer(false).await;
        answer.failed(503, "too many connections; the limit of 2 is reached, try again in 5 s");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("5"), Some("close")));
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(client.end().await, "");
    }
    assert_eq!(second.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    drop(first);
    let served = async {
        while server.connect().await.ask(&format!("GET /vms/{ID}/")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the place that became free is not given away");
}

#[tokio::test]
async fn a_flood_above_the_limit_is_refused_in_words_only_so_far() {
    let server = start_with(Settings::default(), Limits { connections: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    assert_eq!(first.ask(&format!("GET /vms/{ID}/")).await.status, 200);
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(server.connect().await);
    }
    let mut told = 0;
    for client in &mut flood {
        let text = client.end().await;
        assert!(text.is_empty() || text.contains("503 Service Unavailable") && text.ends_with("</root>\n"), "{text}");
        told += usize::from(!text.is_empty());
    }
    assert!(told >= 64, "{told}");
    assert_eq!(first.ask(&format!("GET /vms/{ID}/")).await.status, 200);
}
