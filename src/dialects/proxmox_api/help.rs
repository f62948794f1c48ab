//! What OPTIONS says: the methods of a path, and their parameters.

use serde_json::{Value, json};

use super::reply::Reply;

/// Where there is nothing to be said, the methods alone, as Express answers by itself.
pub(super) fn of(pattern: &str, methods: &[&str]) -> Reply {
    match said(pattern) {
        Some((allow, body)) => Reply::value(&body).allowing(allow.to_owned()),
        None => {
            let served: Vec<_> = methods.iter().copied().filter(|method| *method != "OPTIONS").collect();
            Reply::text(served.join(",")).allowing(served.join(","))
        }
    }
}

/// `Allow` as the clients know it, which is not all that is served.
fn said(pattern: &str) -> Option<(&'static str, Value)> {
    let id = || json!({ "id": "number" });
    let user = || json!({ "username": "string", "password": "string|minimum 6 characters" });
    Some(match pattern {
        "/" => (
            "GET,OPTIONS",
            json!({ "Endpoints": {
                "container": "The machines: made from templates, shown, and scheduled to be deleted",
                "node": "What each host is doing",
                "template": "What machines are made from",
                "user": "Who has machines",
                "cluster": "All hosts at a glance, the next free id, and the machines that are to be deleted",
                "utils": "The console of a machine, and what it used in the last hour",
            } }),
        ),
        "/cluster" => (
            "GET,REPORT",
            json!({
                "REPORT": "A summary of each node",
                "GET": {
                    "nextid": { "url": "/cluster/nextid", "description": "Reserves the next free id for a minute" },
                },
                "DELETE": "Deletes every machine that is scheduled for it",
            }),
        ),
        "/node" => ("REPORT", json!({ "REPORT": "The status of each node" })),
        "/template" => ("GET", json!({ "GET": "The templates of each node" })),
        "/utils" => ("GET,PUT,POST,DELETE", json!({ "GET": { "vnc": id(), "graphic": id(), "ticket": {} } })),
        "/user" => (
            "GET,PUT,POST,DELETE",
            json!({
                "GET": { "username": "string|optional" },
                "POST": user(),
                "PUT": user(),
                "DELETE": { "username": "string" },
            }),
        ),
        "/container" => (
            "POST,GET,DELETE",
            json!({
                "POST": {
                    "username": "string|whose the machine is",
                    "template": "string|a volid of /template",
                    "cpu": "number|of virtual CPUs, from 1 to 64",
                    "hostname": "string",
                    "memory": "number|megabytes",
                    "ostype": "string|ubuntu,debian,centos,archlinux",
                    "storage": "string",
                    "swap": "number|megabytes",
                    "disk": "number|gigabytes",
                    "id": "number|optional, of /cluster/nextid",
                },
                "GET": { "id": "number|optional", "username": "string|optional" },
                "DELETE": id(),
            }),
        ),
        _ => return None,
    })
}
