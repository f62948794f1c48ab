//! Who sees what, and from where.

use pengx::config::VirtDancer;
use pengx::model::{NameRules, Role, Secret};
use pengx::operations::Login;

use super::{PASSWORD, Scene, account, basic, registry};
use crate::harness::wait::wait_until;

fn rules(exact: &[&str], prefix: &[&str], suffix: &[&str]) -> NameRules {
    let [exact, prefix, suffix] = [exact, prefix, suffix].map(|all| all.iter().map(|&t| t.to_owned()).collect());
    NameRules { exact, prefix, suffix }
}

#[test]
fn any_entry_of_any_list_shows_a_vm() {
    let scene = Scene::new();
    for (n, (rules, sees)) in [
        (rules(&[], &[], &[]), &[][..]),
        (rules(&["db-2"], &[], &[]), &["db-2"]),
        (rules(&["db-"], &[], &[]), &[]),
        (rules(&[], &["web-"], &[]), &["web-1"]),
        (rules(&[], &[], &["-2"]), &["db-2"]),
        (rules(&[], &[""], &[]), &["web-1", "db-2"]),
        (rules(&["web-1"], &["x"], &["2"]), &["web-1", "db-2"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("user{n}");
        account(&scene.app.store(), &name, Role::Operator, Some(rules.clone()));
        // Until the server has seen the account.
        wait_until("the account counts", || Ok(scene.ask(&name, "GET", "/vm", "").status == 200));
        let list = scene.ask(&name, "GET", "/vm", "").ok();
        let names: Vec<_> = list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap()).collect();
        assert_eq!(names, sees, "{rules:?}");
        for (vm, of) in [("web-1", "{web}"), ("db-2", "{db}")] {
            for (method, rest) in [("GET", ""), ("GET", "/stats/cpu"), ("POST", "/action?action=boot")] {
                let answer = scene.ask(&name, method, &format!("/vm/{of}{rest}"), "");
                let (status, hidden) = (answer.status, !sees.contains(&vm));
                assert_eq!(status == 403, hidden, "{method} {rest} of {vm} by {rules:?}: {answer:?}");
            }
        }
    }
    assert_eq!(scene.state(scene.web), 5);
}

/// The line of the original's configuration is all that is known of its users.
#[test]
fn users_of_the_original_keep_their_passwords() {
    let scene = Scene::new();
    let hash = Secret::new(
        "$6$virtdancer$x1PmUJahyxKybGwaolJya7jrniwM7nCRb9bNvjtD2dvNHQjFWAloWcKFsIo1FkVnm8V6AbwJkvrgPeK.yRjLf."
            .to_owned(),
    );
    let web = rules(&[], &["web-"], &[]);
    registry(&scene.app.store()).add_seeing("old", Login::Hash(&hash), Role::Operator, Some(web)).unwrap();
    wait_until("the account counts", || Ok(scene.ask("old", "GET", "/vm", "").status == 200));
    assert_eq!(scene.ask("old", "GET", "/vm", "").ok().as_array().unwrap().len(), 1);
    scene.send("GET", "/vm", &[("Authorization", &basic("old", "a:pass"))], "").login();
}

#[test]
fn statistics_are_for_everybody_if_the_operator_says_so() {
    let scene = Scene::with(VirtDancer { public_stats: true, ..VirtDancer::default() }, "");
    for path in ["/stats/cpu", "/stats/mem", "/api/stats/nic?filter=physical", "/stats/nic/eth0"] {
        scene.ask("", "GET", path, "").ok();
        scene.ask("nobody", "GET", path, "").ok();
    }
    for path in ["/vm", "/vm/{web}", "/vm/{web}/stats/cpu", "/vnc/{web}"] {
        scene.ask("", "GET", path, "").login();
    }
}

/// A browser sends its user's password along with whatever a page of another site has it send.
#[test]
fn pages_of_other_sites_push_no_buttons() {
    let scene = Scene::new();
    let authorization = basic("root", PASSWORD);
    let own = format!("http://{}", scene.http.address);
    let push = |extra: &[(&str, &str)]| {
        let headers = [&[("Authorization", authorization.as_str())], extra].concat();
        scene.send("POST", "/vm/{web}/action?action=start", &headers, "")
    };
    for other in [
        &[("Origin", "http://evil.example")][..],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", own.as_str())],
    ] {
        push(other).told(403, "Forbidden", "Access denied to pages of other sites");
    }
    assert_eq!(scene.state(scene.web), 5);
    push(&[("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")]).done();
}

/// Below a prefix all is as it is at the root of an origin.
#[test]
fn it_can_be_had_below_a_prefix() {
    let scene = Scene::with(VirtDancer::default(), "/vd");
    for path in ["/vd/vm", "/vd/api/vm"] {
        assert_eq!(scene.get(path).ok().as_array().unwrap().len(), 2, "{path}");
    }
    scene.get("/vd/nothing").told(404, "Not Found", "/nothing");
    assert_eq!(scene.get("/vm").status, 404);
}
