//! Which VM a name names, and whom it shows.

use pengx::error::{Error, ErrorKind};
use pengx::model::{NameRules, Vm};
use pengx::operations::Registry;
use pengx::store::{accounts, vms};

use super::{ACCOUNT, Api, registry, serve, settings};
use crate::harness::wait::wait_until;

/// What this API would do with two, nobody needs to know.
#[test]
fn no_two_vms_have_one_name() {
    let api = Api::new();
    api.vm("twin");
    let other = api.vm("other");
    let refused = |outcome: Error| assert!(matches!(outcome.kind(), ErrorKind::Exists { .. }), "{outcome:?}");
    refused(api.app.run(api.app.vm_of(api.storlink, None, "twin")).unwrap_err());
    // Not even behind the server's back.
    let renamed = api.app.store().write_tx(|c| {
        let row = vms::find(c, other)?.unwrap();
        vms::update(c, &Vm { name: "twin".to_owned(), ..row })
    });
    refused(renamed.unwrap_err());
    assert_eq!(api.listed("all"), ["other", "twin"]);
    api.app.assert_at_rest();
}

#[test]
fn a_vm_of_another_host_is_not_of_this_one() {
    let api = Api::new();
    api.vm("here");
    let storlink = api.storlink;
    let mut app = api.app;
    app.site.host += 1;
    let app = app.restart();
    let other = Api { http: serve(&app, "", settings()), app, storlink };
    assert_eq!(other.listed("all"), Vec::<String>::new());
    other.get("/vm_state?name=here").details(400, "No VM named here");
    other.post("/vm_start?name=here").details(400, "No VM named here");
    other.app.assert_at_rest();
}

/// As one that is not there: in lists, for every endpoint, and for whoever starts or stops it.
#[test]
fn a_vm_that_the_account_may_not_see_is_not_there() {
    let api = Api::new();
    let [alpha, ..] = api.four();
    see(&registry(&api.app), &api, &["beta", "gamma"]);
    wait_until("the rules count", || Ok(api.listed("all") == ["beta", "gamma"]));
    assert_eq!(api.listed("active"), ["gamma"]);
    assert_eq!(api.listed("8192"), ["beta", "gamma"]);
    for path in ["/vm_info", "/vm_ip", "/vm_xmldesc", "/vm_viewer", "/vm_state", "/vm_status", "/vm_screenshot"] {
        api.get(&format!("{path}?name=alpha")).details(400, "No VM named alpha");
    }
    let effects = api.app.site.fake.effects();
    for path in ["/vm_start", "/vm_stop"] {
        for name in ["alpha", "delta"] {
            api.post(&format!("{path}?name={name}")).details(400, &format!("No VM named {name}"));
        }
    }
    assert_eq!(api.app.site.fake.effects(), effects);
    assert!(api.app.site.fake.running(alpha).is_some());
    see(&registry(&api.app), &api, &[]);
    wait_until("it sees none", || Ok(api.listed("all").is_empty()));
    api.app.assert_at_rest();
}

fn see(registry: &Registry, api: &Api, names: &[&str]) {
    let user = registry.find(ACCOUNT).unwrap();
    let exact = names.iter().map(|name| (*name).to_owned()).collect();
    let rules = NameRules { exact, ..NameRules::default() };
    api.app.store().note_tx(|c| accounts::set_sees(c, user.id, Some(&rules), user.updated_at)).unwrap();
}

#[test]
fn while_the_account_is_not_there_nobody_is_let_in() {
    let api = Api::with(|settings| settings.open.act_as = "somebody".parse().unwrap());
    for uri in ["/", "/vms?type=all", "/nope"] {
        let answer = api.get(uri);
        assert_eq!(answer.status, 403, "{uri}: {answer:?}");
        assert!(answer.body.starts_with("{\"detail\":\"you may not use this API before the account"), "{answer:?}");
    }
}
