//! Rows that are still to come: routed, and 501 in words; and rows that are served never say so.

use super::table::{ROWS, uri};
use super::{Api, NOBODY};

#[test]
fn each_row_still_to_come_answers_501_under_each_of_its_names() {
    let api = Api::new();
    let mut asked = 0;
    for row in ROWS.iter().filter(|row| !row.served) {
        for endpoint in row.endpoints {
            let (method, pattern) = endpoint.split_once(' ').unwrap();
            let message = format!("{method} {pattern} is not available in this release");
            let answer = api.http.send(method, &uri(pattern), "");
            answer.refused(501, &message);
            // Nor does it look at what was sent.
            api.http.send(method, &uri(pattern), "<vm><name>x</name></vm>").refused(501, &message);
            asked += 1;
        }
    }
    assert_eq!(asked, 1);
    api.app.assert_at_rest();
}

#[test]
fn under_every_prefix_too() {
    let api = Api::new();
    for prefix in ["", "/api", "/api/v1", "/api/v2", "/apiv2", "/v1", "/v2"] {
        let message = "POST /vms/:vm/migrate/ is not available in this release";
        api.post(&format!("{prefix}/vms/{NOBODY}/migrate/"), "").refused(501, message);
    }
}

#[test]
fn rows_that_are_served_never_say_501() {
    let api = Api::new();
    for row in ROWS.iter().filter(|row| row.served) {
        for endpoint in row.endpoints {
            let (method, pattern) = endpoint.split_once(' ').unwrap();
            let answer = api.http.send(method, &uri(pattern), "");
            assert!([200, 201, 400, 404].contains(&answer.status), "{endpoint}: {answer:?}");
        }
    }
    api.app.assert_at_rest();
}
