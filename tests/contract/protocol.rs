//! What every URI has in common: methods, `Allow`, HEAD, OPTIONS, slashes, suffixes, prefixes.

use super::table::{methods, uri};
use super::{Api, NOBODY};

/// Of everything that can be read in this release, on a site where all of it is there.
fn readable(api: &Api, vm: &str) -> Vec<String> {
    let task = api.get("/tasks/").ids("task")[0].clone();
    let lists = ["/pms/", "/storlinks/", "/templates/", "/vms/", "/tasks/"].map(str::to_owned);
    lists.into_iter().chain([format!("/vms/{vm}/"), format!("/tasks/{task}/")]).collect()
}

#[test]
fn every_uri_says_which_methods_it_has() {
    let api = Api::new();
    let all = methods();
    assert_eq!(all.len(), pengx::dialects::pengx::resources::RESOURCES.len());
    for (pattern, has) in &all {
        let mut allow = has.join(", ");
        if has.contains(&"GET") {
            allow.push_str(", HEAD");
        }
        allow.push_str(", OPTIONS");
        let uri = uri(pattern);
        let options = api.http.ask("OPTIONS", &uri, &[], "");
        assert_eq!((options.status, options.header("allow")), (200, Some(allow.as_str())), "{pattern}");
        assert_eq!(options.element("name"), *pattern);
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if !has.contains(&method) {
                let answer = api.http.send(method, &uri, "<any/>");
                answer.refused(405, &format!("{method} is not allowed here; use one of {allow}"));
                assert_eq!(answer.header("allow"), Some(allow.as_str()));
            }
        }
        let head = api.http.ask("HEAD", &uri, &[], "");
        assert_eq!((head.status == 405, head.body.as_str()), (!has.contains(&"GET"), ""), "{pattern}: {head:?}");
    }
    api.app.assert_at_rest();
}

#[test]
fn reads_are_the_same_under_every_name() {
    let (api, stock) = Api::stocked();
    let vm = api.vm(&stock, "web1");
    for uri in readable(&api, &vm) {
        // Free space may change between two reads.
        let body = |uri: &str| {
            let answer = api.get(uri);
            assert_eq!(answer.status, 200, "{uri}: {answer:?}");
            answer.body.lines().filter(|line| !line.contains("<free>")).collect::<Vec<_>>().join("\n")
        };
        let get = api.get(&uri);
        let plain = body(&uri);
        let head = api.http.ask("HEAD", &uri, &[], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{uri}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
        if !uri.starts_with("/storlinks/") {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{uri}");
        }
        let bare = uri.trim_end_matches('/');
        for method in ["GET", "HEAD"] {
            for (query, kept) in [("", ""), ("?a=%20&b", "?a=%20&b")] {
                let moved = api.http.ask(method, &format!("{bare}{query}"), &[], "");
                let location = format!("{uri}{kept}");
                assert_eq!((moved.status, moved.header("location")), (301, Some(location.as_str())), "{uri}");
                assert_eq!(moved.body, "");
            }
        }
        assert_eq!(body(&format!("{bare}.xml")), plain);
        assert_eq!(body(&format!("{uri}?format=xml")), plain);
        for other in [format!("{bare}.json"), format!("{uri}?format=json")] {
            api.get(&other).refused(404, "there is nothing at this URI");
        }
        for prefix in ["/api", "/api/v2", "/apiv2", "/v2"] {
            assert_eq!(body(&format!("{prefix}{uri}")), plain, "{prefix}{uri}");
        }
        for prefix in ["/v1", "/api/v1"] {
            let v1 = body(&format!("{prefix}{uri}"));
            if uri == "/templates/" {
                // The v2 shape is the v1 shape and more, in the same order.
                let mut lines = plain.lines();
                assert_ne!(v1, plain);
                assert!(v1.lines().all(|line| lines.any(|l| l == line)), "{v1}\n{plain}");
                assert!(!v1.contains("lock_status") && plain.contains("<lock_status>False</lock_status>"));
            } else {
                assert_eq!(v1, plain, "{prefix}{uri}");
            }
        }
    }
    api.get("/v3/vms/").refused(404, "there is nothing at this URI");
    api.app.assert_at_rest();
}

#[test]
fn changes_are_served_with_and_without_the_slash_and_under_every_prefix() {
    let (api, stock) = Api::stocked();
    for (n, prefix) in ["", "/api", "/api/v1", "/api/v2", "/apiv2", "/v1", "/v2"].into_iter().enumerate() {
        let slash = if n % 2 == 0 { "" } else { "/" };
        let name = format!("vm{n}");
        let body = super::vm(&name, &stock, "<os_disk_size>1</os_disk_size>");
        api.post(&format!("{prefix}/vms{slash}"), &body).done(201, &format!("vm {name} is created"));
        let id = api.vm_id(&name);
        for (verb, done) in
            [("start", "started"), ("shutdown", "shut down"), ("start", "started"), ("poweroff", "powered off")]
        {
            api.post(&format!("{prefix}/vms/{id}/{verb}{slash}"), "").done(200, &format!("vm {name} is {done}"));
        }
        api.http.delete(&format!("{prefix}/vms/{id}{slash}")).empty_204();
        api.get(&format!("{prefix}/vms/{id}/")).refused(404, &format!("there is no vm {id}"));
    }
    api.app.assert_at_rest();
}

#[test]
fn what_cannot_be_answered_in_xml_or_read_is_refused_before_anything_happens() {
    let (api, stock) = Api::stocked();
    let before = crate::harness::world::World::of(&api.app);
    let body = super::vm("x", &stock, "<os_disk_size>1</os_disk_size>");
    let xml = ("Content-Type", "application/xml");
    let ask = |headers: &[(&str, &str)], body: &str| api.http.ask("POST", "/vms/", headers, body);
    let excluded = "the answer is XML, which the Accept header excludes";
    ask(&[xml, ("Accept", "application/json")], &body).refused(406, excluded);
    let json = ask(&[("Content-Type", "application/json")], "{}");
    json.refused(415, "bodies of type application/json are not read; send application/xml");
    ask(&[xml, ("Origin", "http://evil.example")], &body)
        .refused(403, "requests from this Origin may not change anything; see allowed_origins");
    for wrong in
        ["<vm><name>x</cpu_core></vm>", "<vm>", "x", "<!DOCTYPE vm [<!ENTITY a 'b'>]><vm>&a;</vm>", "<vm>&b;</vm>"]
    {
        let answer = ask(&[xml], wrong);
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
        assert!(answer.message().starts_with("the body cannot be read: "), "{wrong}: {answer:?}");
    }
    for uri in ["/vms/7/", "/vms/nope/", "/nope/", "/", &format!("/vms/{NOBODY}/nope/")] {
        api.get(uri).refused(404, "there is nothing at this URI");
    }
    assert_eq!(crate::harness::world::World::of(&api.app), before);
    api.app.assert_at_rest();
}
