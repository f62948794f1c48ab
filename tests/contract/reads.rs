//! What reads cost the hypervisor: nothing, however many VMs there are.

use pengx::hypervisor::Verb;

use super::Api;

const OTHERS: [Verb; 11] = [
    Verb::Info,
    Verb::Domain,
    Verb::HasBridge,
    Verb::Define,
    Verb::Undefine,
    Verb::Start,
    Verb::RequestShutdown,
    Verb::RequestReboot,
    Verb::Destroy,
    Verb::Pause,
    Verb::Unpause,
];

/// The inventory may look at all domains at once now and then; a list never does.
#[test]
fn no_list_asks_the_hypervisor_anything() {
    let (api, stock) = Api::stocked();
    let fake = &api.app.site.fake;
    let mut made = 0;
    for count in [1, 20] {
        while made < count {
            let id = api.vm(&stock, &format!("vm{made}"));
            if made % 3 == 0 {
                assert_eq!(api.post(&format!("/vms/{id}/start/"), "").status, 200);
            }
            made += 1;
        }
        let others = || OTHERS.iter().map(|verb| fake.calls(*verb)).sum::<u64>();
        let before = others();
        let quiet = (0..50).any(|_| {
            let calls = fake.all_calls();
            for _ in 0..5 {
                let list = api.get("/vms/");
                assert_eq!((list.status, list.ids("vm").len()), (200, made));
                assert_eq!(list.body.matches("<status>RUNNING</status>").count(), made.div_ceil(3));
                assert_eq!(api.get(&format!("/vms/{}/", list.ids("vm")[0])).status, 200);
                assert_eq!(api.get("/templates/").status, 200);
                assert_eq!(api.get("/tasks/").status, 200);
            }
            fake.all_calls() == calls
        });
        assert!(quiet, "no round of reads of {made} VMs without a call");
        assert_eq!(others(), before, "reads of {made} VMs asked more than the list of all domains");
    }
    api.app.assert_at_rest();
}
