//! The one way in: who passes, as whom, and what a core refuses to whom it was given.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pengx::error::Result;
use pengx::model::{Role, StorlinkLevel, StorlinkType, TaskId};
use pengx::operations::storlink::CreateStorlink;
use pengx::operations::vm::DeleteVm;
use pengx::operations::{Core, Credentials, Gate, task};

use super::{PASSWORD, Scene, basic, on_both, secret};
use crate::harness::app::Site;
use crate::harness::postgres::Server;
use crate::harness::wait::wait_until;

const REFUSED: &str = "credentials are missing or wrong";

fn enter(gate: &Gate, credentials: Credentials, peer: Option<&str>) -> Result<Core> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(gate.enter(credentials, peer.map(|ip| ip.parse::<IpAddr>().unwrap())))
}

#[test]
fn while_there_is_no_account_this_host_is_admin_and_others_are_told_what_to_do() {
    on_both(|scene| {
        let gate = Gate::new(scene.app.core.clone(), false).unwrap();
        let open = Gate::new(scene.app.core.clone(), true).unwrap();
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let core = enter(&gate, Credentials::None, Some(own)).unwrap();
            assert_eq!((core.caller().to_string().as_str(), core.caller().is_known_by_place()), ("(local)", true));
        }
        for other in [Some("192.0.2.1"), Some("::ffff:192.0.2.1"), Some("2001:db8::1"), None] {
            let refused = enter(&gate, Credentials::Token(secret("x")), other).err().unwrap();
            assert_eq!(refused.kind().name(), "forbidden", "{other:?}");
            assert!(refused.to_string().contains("run pengx user add"), "{refused}");
            let core = enter(&open, Credentials::None, other).unwrap();
            assert_eq!((core.caller().to_string().as_str(), core.caller().is_known_by_place()), ("(anybody)", false));
        }

        // As soon as there is one, everybody needs it, here too and whatever the operator said.
        scene.registry.add("ann", &secret(PASSWORD), Role::Viewer).unwrap();
        for gate in [&gate, &open] {
            wait_until("the account counts", || {
                Ok(enter(gate, Credentials::None, Some("127.0.0.1"))
                    .is_err_and(|refused| refused.kind().name() == "unauthenticated"))
            });
            let refused = enter(gate, Credentials::None, Some("192.0.2.1")).err().unwrap();
            assert_eq!((refused.kind().name(), refused.to_string().as_str()), ("unauthenticated", REFUSED));
            let ann = Credentials::Basic { name: "ann".to_owned(), password: secret(PASSWORD) };
            assert_eq!(enter(gate, ann, Some("192.0.2.1")).unwrap().caller().to_string(), "ann");
        }
        // The last account takes the need with it.
        scene.registry.remove("ann").unwrap();
        wait_until("nobody needs to log in", || Ok(enter(&gate, Credentials::None, Some("::1")).is_ok()));
    });
}

#[test]
fn every_scheme_is_taken_and_nothing_else() {
    on_both(|scene| {
        let token = scene.add("김 관리자", Role::Admin);
        scene.wait("", 401);
        for good in [
            format!("Bearer {token}"),
            format!("bearer  {token}"),
            format!("Token {token}"),
            format!("TOKEN {token}"),
            basic("김 관리자", PASSWORD),
            basic("김 관리자", PASSWORD).replace("Basic", "bAsIc"),
        ] {
            assert_eq!(scene.get(&good), 200, "{good}");
        }
        let digest = scene.app.store().read(pengx::store::accounts::tokens).unwrap()[0].digest.to_string();
        for bad in [
            String::new(),
            "Bearer".to_owned(),
            format!("Bearer {token}x"),
            format!("Bearer {}", &token[..token.len() - 1]),
            format!("Bearer {}", token.to_uppercase()),
            format!("Bearer {digest}"),
            format!("Bearer {token} {token}"),
            format!("Digest {token}"),
            token.clone(),
            basic("김 관리자", &token),
            basic("김 관리자", &PASSWORD.to_uppercase()),
            basic("김 관리자", ""),
            basic("김", PASSWORD),
            basic("", PASSWORD),
            "Basic ****".to_owned(),
            "Basic YW5u".to_owned(),
        ] {
            let answer = scene.with(&bad, "GET", "/vms/");
            assert_eq!((answer.status, answer.message()), (401, REFUSED), "{bad}");
            let challenges: Vec<&str> =
                answer.headers.iter().filter(|(name, _)| name == "www-authenticate").map(|(_, v)| v.as_str()).collect();
            assert_eq!(challenges, ["Basic realm=\"pengx\"", "Bearer realm=\"pengx\""], "{bad}");
            for secret in [token.as_str(), PASSWORD, digest.as_str()] {
                assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
            }
        }
        let bearer = format!("Bearer {token}");
        let twice = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
        assert_eq!(scene.http.ask("GET", "/vms/", &twice, "").status, 401);
    });
}

#[test]
fn what_needs_no_caller_is_decided_first_and_all_else_after() {
    let scene = Scene::sqlite();
    let viewer = format!("Token {}", scene.add("eve", Role::Viewer));
    scene.wait("", 401);
    let ask = |method: &str, uri: &str, headers: &[(&str, &str)], body: &str| {
        scene.http.ask(method, uri, headers, body).status
    };
    assert_eq!(ask("GET", "/nope/", &[], ""), 404);
    assert_eq!(ask("GET", "/vms/?format=json", &[], ""), 404);
    assert_eq!(ask("GET", "/vms/", &[("Accept", "application/json")], ""), 406);
    assert_eq!(ask("PATCH", "/vms/", &[("Accept", "application/json")], ""), 406);
    assert_eq!(ask("GET", "/vms", &[], ""), 301);
    for (method, uri) in [("PATCH", "/vms/"), ("DELETE", "/vms/"), ("HEAD", "/vms/"), ("OPTIONS", "/vms/")] {
        assert_eq!(ask(method, uri, &[], ""), 401, "{method}");
    }
    assert_eq!(ask("POST", "/vms/", &[("Content-Type", "application/json")], "{"), 401);
    // Who may not change anything is told so before the method and the body are looked at.
    let as_viewer = [("Authorization", viewer.as_str()), ("Content-Type", "application/json")];
    let answer = scene.http.ask("POST", "/vms/", &as_viewer, "{");
    assert_eq!(answer.status, 403);
    assert_eq!(answer.message(), "you may not POST here as viewer; it takes the role operator");
    assert_eq!(ask("PATCH", "/vms/", &as_viewer, ""), 403);
    assert_eq!(ask("GET", "/vms/0f6a9c1e-0000-4000-8000-00000000ffff/start/", &as_viewer, ""), 405);
    // The name of the host is nobody's credentials any more.
    let rebound = [("Authorization", viewer.as_str()), ("Host", "pengx.example")];
    assert_eq!(ask("GET", "/vms/", &rebound, ""), 200);
    scene.registry.remove("eve").unwrap();
    wait_until("the place speaks again", || Ok(ask("GET", "/vms/", &[], "") == 200));
    assert_eq!(ask("GET", "/vms/", &rebound, ""), 403);
}

#[test]
fn a_core_refuses_what_its_caller_may_not_before_a_row_is_written() {
    let scene = Scene::sqlite();
    let tokens = [Role::Viewer, Role::Operator, Role::Admin].map(|role| scene.add(role.word(), role));
    let gate = Gate::new(scene.app.core.clone(), false).unwrap();
    let [viewer, operator, admin] = tokens.map(|t| enter(&gate, Credentials::Token(secret(&t)), None).unwrap());
    let storlink = || CreateStorlink {
        name: "store1".parse().unwrap(),
        link: scene.app.site.store_dir().to_str().unwrap().to_owned(),
        kind: StorlinkType::Local,
        level: StorlinkLevel::File,
        desc: String::new(),
        shared: false,
    };
    let nobody = uuid::Uuid::from_u128(1);
    let delete = || DeleteVm { vm: pengx::model::VmId(nobody) };
    let said = |refused: Option<pengx::error::Error>| refused.unwrap().to_string();
    assert_eq!(
        said(viewer.submit_blocking(delete()).err()),
        "you may not run vm.delete as viewer; it takes the role operator"
    );
    for core in [&viewer, &operator] {
        let refused = core.submit_blocking(storlink()).err().unwrap();
        assert_eq!(refused.kind().name(), "forbidden");
        assert!(refused.to_string().ends_with("it takes the role admin"), "{refused}");
    }
    assert_eq!(
        said(task::cancel(&viewer, TaskId(nobody)).err()),
        "you may not cancel a task as viewer; it takes the role operator"
    );
    assert_eq!(scene.app.store().read(|c| pengx::store::tasks::recent(c, 9)).unwrap(), []);
    // Whoever may is told the truth.
    assert_eq!(operator.submit_blocking(delete()).err().unwrap().kind().name(), "not_found");
    assert_eq!(task::cancel(&operator, TaskId(nobody)).unwrap_err().kind().name(), "not_found");
    admin.submit_blocking(storlink()).unwrap().wait_blocking().unwrap();
    assert_eq!(task::list(&viewer).unwrap().len(), 1);
}

#[test]
fn only_who_may_open_the_screen_reads_its_password() {
    let scene = Scene::sqlite();
    let storlink = scene.app.storlink();
    let vm = scene.app.run(scene.app.vm_of(storlink, None, "web1")).unwrap();
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let token = format!("Bearer {}", scene.add(role.word(), role));
        scene.wait(&token, 200);
        let answer = scene.with(&token, "GET", &format!("/vms/{vm}/"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.element("vnc_password").is_empty(), role == Role::Viewer, "{role}: {answer:?}");
    }
}

#[test]
fn a_flood_of_wrong_passwords_keeps_nobody_else_out() {
    let scene = Scene::sqlite();
    let token = format!("Bearer {}", scene.add("ann", Role::Operator));
    let known = basic("ann", PASSWORD);
    scene.wait(&token, 200);
    assert_eq!(scene.get(&known), 200);
    let (over, under_way) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (wrong, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for n in 0..100 {
            let (scene, over, under_way, wrong, turned_away) = (&scene, &over, &under_way, &wrong, &turned_away);
            scope.spawn(move || {
                let name = if n % 2 == 0 { "ann" } else { "nobody" };
                while !over.load(Ordering::SeqCst) {
                    under_way.fetch_add(1, Ordering::SeqCst);
                    let answer = scene.with(&basic(name, &format!("wrong {n}")), "GET", "/vms/");
                    match answer.status {
                        401 => wrong.fetch_add(1, Ordering::SeqCst),
                        503 => turned_away.fetch_add(1, Ordering::SeqCst),
                        _ => panic!("{answer:?}"),
                    };
                }
            });
        }
        wait_until("the flood has begun", || {
            let seen = |counter: &AtomicUsize| counter.load(Ordering::SeqCst) > 0;
            Ok(under_way.load(Ordering::SeqCst) >= 100 && seen(&wrong) && seen(&turned_away))
        });
        // Each of these ends while all of those go on.
        for _ in 0..20 {
            assert_eq!((scene.get(&token), scene.get(&known)), (200, 200));
        }
        over.store(true, Ordering::SeqCst);
    });
    // And the way is free again.
    scene.registry.set_password("ann", &secret("another password")).unwrap();
    scene.wait(&basic("ann", "another password"), 200);
    assert_eq!(scene.get(&known), 401);
}

#[test]
fn while_the_database_is_away_what_is_known_of_accounts_holds() {
    let server = Server::start();
    let mut site = Site::new();
    site.database_url = server.database();
    let scene = Scene::on(site);
    let token = format!("Bearer {}", scene.add("ann", Role::Operator));
    scene.wait(&token, 200);
    server.stop();
    // What needs no database is served, to those who are known.
    let options = |authorization: &str| scene.with(authorization, "OPTIONS", "/vms/").status;
    assert_eq!((options(&token), options("Bearer x"), options("")), (200, 401, 401));
    assert_eq!(scene.get(&token), 503);
    server.start_again();
    scene.wait(&token, 200);
    let late = format!("Bearer {}", scene.token("ann"));
    scene.wait(&late, 200);
}
