//! Who is let in, and which pages.

use std::sync::atomic::Ordering;

use pengx::dialects::pengx::Settings;
use pengx::model::{Role, Secret};
use pengx::server::Limits;

use super::{Scene, add_vm};
use crate::harness::http::{Answer, basic};
use crate::harness::viewer::Viewer;
use crate::harness::wait::wait_until;

impl Scene {
    fn show(&self, ticket: &str) -> Result<Viewer, Answer> {
        Viewer::open(self.http.address, &format!("{}?ticket={ticket}", self.uri()), &[])
    }

    #[track_caller]
    fn assert_refused(&self, ticket: &str) {
        let answer = self.show(ticket).map(drop).unwrap_err();
        answer.said(401, "credentials are missing or wrong");
        assert!(answer.header("www-authenticate").is_some());
    }
}

#[test]
fn a_ticket_is_good_once() {
    let scene = Scene::new();
    let (one, two) = (scene.ticket(), scene.ticket());
    assert_ne!(one, two);
    assert_eq!(one.len(), 43, "32 bytes");
    drop(scene.show(&one).unwrap().welcomed());
    scene.assert_refused(&one);
    drop(scene.show(&two).unwrap().welcomed());
    for never in ["", "x", &two] {
        scene.assert_refused(never);
    }
}

#[test]
fn a_ticket_ends_after_half_a_minute() {
    let scene = Scene::new();
    let (early, late) = (scene.ticket(), scene.ticket());
    scene.app.site.ahead.fetch_add(20, Ordering::SeqCst);
    drop(scene.show(&early).unwrap());
    scene.app.site.ahead.fetch_add(11, Ordering::SeqCst);
    scene.assert_refused(&late);
}

#[test]
fn a_ticket_is_for_one_vm() {
    let scene = Scene::new();
    let storlink = scene.app.store().read(pengx::store::storlinks::all).unwrap()[0].id;
    let other = add_vm(&scene.app, storlink, "web2");
    scene.http.post(&format!("/vms/{other}/start/"), "").said(200, "vm web2 is started");
    let ticket = scene.ticket();
    let uri = format!("/vms/{other}/console/?ticket={ticket}");
    Viewer::open(scene.http.address, &uri, &[]).map(drop).unwrap_err().said(401, "credentials are missing or wrong");
    // Whoever tried it may try again elsewhere.
    scene.assert_refused(&ticket);
}

#[test]
fn a_plain_read_uses_no_ticket_up() {
    let scene = Scene::new();
    let ticket = scene.ticket();
    assert_eq!(scene.http.get(&format!("{}?ticket={ticket}", scene.uri())).status, 426);
    drop(scene.show(&ticket).unwrap());
}

#[test]
fn with_accounts_a_ticket_or_credentials_are_needed_and_the_role() {
    let scene = Scene::new();
    let before = scene.ticket();
    let accounts = scene.accounts();
    let operator = scene.add(&accounts, Role::Operator);
    scene.assert_refused(&before);
    scene.open().map(drop).unwrap_err().said(401, "credentials are missing or wrong");
    let viewer = scene.add(&accounts, Role::Viewer);
    let ask = |who: &str| scene.http.ask("POST", &scene.uri(), &[("Authorization", who)], "");
    assert_eq!(ask(&viewer).status, 403);
    let join = |who: &str| Viewer::open(scene.http.address, &scene.uri(), &[("Authorization", who)]);
    let refused = join(&viewer).map(drop).unwrap_err();
    refused.said(403, "you may not open a console as viewer; it takes the role operator");
    drop(join(&operator).unwrap().welcomed());
    let basic = "Basic b3BlcmF0b3I6YSBwYXNzd29yZA==";
    drop(join(basic).unwrap().welcomed());
    let ticket = ask(&operator).element("ticket").to_owned();
    drop(scene.show(&ticket).unwrap().welcomed());
    scene.assert_refused(&ticket);
}

/// What counts is the account as it is when the ticket is shown.
#[test]
fn a_ticket_is_worth_what_its_owner_may_now() {
    let scene = Scene::new();
    let accounts = scene.accounts();
    let operator = scene.add(&accounts, Role::Operator);
    scene.add(&accounts, Role::Viewer);
    let ticket =
        || scene.http.ask("POST", &scene.uri(), &[("Authorization", &operator)], "").element("ticket").to_owned();
    let (demoted, removed) = (ticket(), ticket());
    accounts.set_role("operator", Role::Viewer).unwrap();
    let post = || scene.http.ask("POST", &scene.uri(), &[("Authorization", &operator)], "").status;
    wait_until("the role is known", || Ok(post() == 403));
    let refused = scene.show(&demoted).map(drop).unwrap_err();
    refused.said(403, "you may not open a console as viewer; it takes the role operator");
    accounts.remove("operator").unwrap();
    wait_until("the account is gone", || Ok(post() == 401));
    scene.assert_refused(&removed);
}

/// A token that is revoked, and a password that is changed, take their tickets along.
#[test]
fn a_ticket_is_worth_nothing_without_what_its_owner_came_with() {
    let scene = Scene::new();
    let accounts = scene.accounts();
    let (token, password) = (scene.add(&accounts, Role::Operator), basic("operator", "a password"));
    let post = |who: &str| scene.http.ask("POST", &scene.uri(), &[("Authorization", who)], "");
    let [by_token, by_password] = [&token, &password].map(|who| post(who).element("ticket").to_owned());
    accounts.revoke(accounts.tokens().unwrap().remove(0).id).unwrap();
    wait_until("the token is gone", || Ok(post(&token).status == 401));
    scene.assert_refused(&by_token);
    accounts.set_password("operator", &Secret::new("another password".to_owned())).unwrap();
    wait_until("the password is another", || Ok(post(&password).status == 401));
    scene.assert_refused(&by_password);
}

#[test]
fn pages_of_other_sites_open_nothing_and_use_no_ticket_up() {
    let settings = Settings { allowed_origins: vec!["https://panel.example".to_owned()], ..Settings::default() };
    let scene = Scene::with(settings, Limits::default());
    let own = format!("http://{}", scene.http.address);
    let ticket = scene.ticket();
    let shown = format!("{}?ticket={ticket}", scene.uri());
    for uri in [&scene.uri(), &shown] {
        for origin in ["http://evil.example", "null", "http://127.0.0.1", "https://panel.example.evil.example"] {
            let refused = Viewer::open(scene.http.address, uri, &[("Origin", origin)]).map(drop).unwrap_err();
            refused.said(403, "pages of this Origin may not open a WebSocket; see allowed_origins");
        }
    }
    drop(Viewer::open(scene.http.address, &shown, &[("Origin", &own)]).unwrap());
    drop(Viewer::open(scene.http.address, &scene.uri(), &[("Origin", "https://panel.example")]).unwrap());
    // Its name was rebound to the loopback: it is its own site then, and has nothing but its place.
    let rebound = [("Host", "rebound.example"), ("Origin", "http://rebound.example")];
    let refused = Viewer::open(scene.http.address, &scene.uri(), &rebound).map(drop).unwrap_err();
    assert_eq!(refused.status, 403, "{refused:?}");
}

/// A proxy gives the server's own host, and the ticket whom it lets in.
#[test]
fn a_ticket_speaks_for_itself_under_any_host() {
    let scene = Scene::new();
    let uri = format!("{}?ticket={}", scene.uri(), scene.ticket());
    let outside = [("Host", "panel.example"), ("Origin", "https://panel.example")];
    drop(Viewer::open(scene.http.address, &uri, &outside).unwrap().welcomed());
}
