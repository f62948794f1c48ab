//! Every function of every table.

use pengx::error::ErrorKind;
use pengx::store::journal::{self, Direction, Entry};
use pengx::store::locks::{self, Held, Holder};
use pengx::store::storlinks::{Use, UseKind};
use pengx::store::{accounts, disks, networks, nics, pms, seen, storages, storlinks, tasks, templates, vms};

use super::*;

fn kind<T: std::fmt::Debug>(result: pengx::error::Result<T>) -> &'static str {
    result.unwrap_err().kind().name()
}

#[test]
fn pms_are_saved_found_and_kept_alive() {
    on_both(|db| {
        let (first, mut second) = (pm(1), pm(2));
        second.created_at = at(1);
        assert_eq!(db.read(|c| pms::find(c, first.id)), None);
        db.write(|c| pms::save(c, &second).and_then(|()| pms::save(c, &first)));
        assert_eq!(db.read(pms::all), [first.clone(), second.clone()]);

        let changed = Pm { ssh_pubkey: Some("ssh-ed25519 A".to_owned()), cpu: 16, updated_at: at(9), ..first.clone() };
        db.write(|c| pms::save(c, &Pm { created_at: at(99), ..changed.clone() }));
        assert_eq!(db.read(|c| pms::find(c, first.id)), Some(changed.clone()), "created_at is of the first save");
        db.write(|c| pms::save(c, &Pm { ssh_pubkey: None, ..changed.clone() }));
        assert_eq!(db.read(|c| pms::find(c, first.id)).unwrap().ssh_pubkey, None);

        db.write(|c| pms::heartbeat(c, first.id, at(50)));
        assert_eq!(db.read(|c| pms::find(c, first.id)).unwrap().heartbeat_at, at(50));
        assert_eq!(kind(db.store.write_tx(|c| pms::heartbeat(c, pm(3).id, at(0)))), "not_found");
    });
}

#[test]
fn users_and_their_tokens() {
    on_both(|db| {
        let user = |n: u128, name: &str| User {
            id: UserId(Uuid::from_u128(n)),
            name: name.parse().unwrap(),
            password: Secret::new("$argon2id$…".to_owned()),
            role: Role::Operator,
            sees: (name == "ann")
                .then(|| NameRules { prefix: vec!["web-".to_owned(), String::new()], ..NameRules::default() }),
            created_at: at(1),
            updated_at: at(1),
        };
        let (ann, bob) = (user(2, "ann"), user(1, "bob"));
        let token = |n: u8, owner: &User, expires_at| Token {
            id: TokenId(Uuid::from_u128(n.into())),
            owner: owner.id,
            name: format!("token{n}"),
            digest: TokenDigest([n; 32]),
            created_at: at(n.into()),
            expires_at,
        };
        let (first, second, third) = (token(1, &ann, None), token(2, &bob, Some(at(9))), token(3, &ann, None));
        db.write(|c| accounts::insert_user(c, &bob).and_then(|()| accounts::insert_user(c, &ann)));
        for token in [&third, &second, &first] {
            db.write(|c| accounts::insert_token(c, token));
        }
        assert_eq!(db.read(accounts::users), [ann.clone(), bob.clone()]);
        assert_eq!(db.read(accounts::tokens), [first.clone(), second.clone(), third.clone()]);
        assert_eq!(db.read(|c| accounts::user_named(c, "bob")), Some(bob.clone()));
        assert_eq!(db.read(|c| accounts::user_named(c, "Bob")), None);
        assert_eq!(kind(db.store.write_tx(|c| accounts::insert_user(c, &user(3, "ann")))), "exists");
        let twin = Token { id: TokenId(Uuid::from_u128(9)), ..first.clone() };
        assert_eq!(kind(db.store.write_tx(|c| accounts::insert_token(c, &twin))), "exists");
        assert_eq!(kind(db.store.write_tx(|c| accounts::insert_token(c, &token(4, &user(3, "eve"), None)))), "in_use");

        let hash = Secret::new("another".to_owned());
        db.write(|c| accounts::set_password(c, bob.id, &hash, at(5)));
        db.write(|c| accounts::set_role(c, bob.id, Role::Admin, at(6)));
        let changed = User { password: hash.clone(), role: Role::Admin, updated_at: at(6), ..bob.clone() };
        assert_eq!(db.read(|c| accounts::user_named(c, "bob")), Some(changed.clone()));
        for sees in [
            Some(NameRules::default()),
            Some(NameRules { exact: vec!["웹 1".to_owned()], ..NameRules::default() }),
            None,
        ] {
            db.write(|c| accounts::set_sees(c, bob.id, sees.as_ref(), at(7)));
            let changed = User { sees, updated_at: at(7), ..changed.clone() };
            assert_eq!(db.read(|c| accounts::user_named(c, "bob")), Some(changed));
        }
        let nobody = user(3, "eve").id;
        assert_eq!(kind(db.store.write_tx(|c| accounts::set_password(c, nobody, &hash, at(5)))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| accounts::set_role(c, nobody, Role::Admin, at(5)))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| accounts::set_sees(c, nobody, None, at(5)))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| accounts::remove_user(c, nobody))), "not_found");

        db.write(|c| accounts::remove_token(c, third.id));
        assert_eq!(kind(db.store.write_tx(|c| accounts::remove_token(c, third.id))), "not_found");
        db.write(|c| accounts::remove_user(c, ann.id));
        assert_eq!(db.read(accounts::tokens), [second], "a user's tokens go with it");
    });
}

#[test]
fn a_host_replaces_its_own_facts_and_no_other_hosts() {
    on_both(|db| {
        let (here, there) = (pm(1), pm(2));
        db.write(|c| pms::save(c, &here).and_then(|()| pms::save(c, &there)));
        let network = |name: &str, kind| Network {
            name: name.to_owned(),
            kind,
            method: NetworkMethod::Static,
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
            ip: Some("10.0.0.1".parse().unwrap()),
            prefix: Some(24),
        };
        let (ports, slaves) = (vec!["eth0".to_owned(), "eth1".to_owned()], vec!["eth2".to_owned()]);
        let all = [
            network("xenbr0", NetworkKind::Bridge { by: BridgeType::Ovs, ports }),
            network("bond0", NetworkKind::Bond { mode: 4, slaves }),
            Network {
                mac: None,
                ip: Some("fe80::1".parse().unwrap()),
                method: NetworkMethod::None,
                ..network("eth0", NetworkKind::Nic)
            },
            Network {
                ip: None,
                prefix: None,
                ..network("b", NetworkKind::Bridge { by: BridgeType::Bridge, ports: vec![] })
            },
        ];
        db.write(|c| networks::replace(c, here.id, &all).and_then(|()| networks::replace(c, there.id, &all[2..3])));
        assert_eq!(db.read(|c| networks::of_pm(c, here.id)), all);
        db.write(|c| networks::replace(c, here.id, &all[..2]));
        let of_all = [(here.id, all[0].clone()), (here.id, all[1].clone()), (there.id, all[2].clone())];
        assert_eq!(db.read(networks::all), of_all);
        assert_eq!(kind(db.store.write_tx(|c| networks::replace(c, pm(3).id, &all))), "in_use");

        assert_eq!(db.read(|c| networks::dns_of_pm(c, here.id)), None);
        for dns in [Dns { first: "10.0.0.53".parse().ok(), second: "fd00::53".parse().ok() }, Dns::default()] {
            db.write(|c| networks::replace_dns(c, here.id, dns));
            assert_eq!(db.read(|c| networks::dns_of_pm(c, here.id)), Some(dns));
        }
        // Both ports of one card show the functions of the card.
        let function = |pf: &str, vf: &str| Sriov { pf: pf.to_owned(), vf: vf.to_owned() };
        let functions = [function("eth1", "0000:03:10.1"), function("eth0", "0000:03:10.1")];
        db.write(|c| networks::replace_sriov(c, here.id, &functions));
        assert_eq!(db.read(|c| networks::sriov_of_pm(c, here.id)), functions);
        db.write(|c| networks::replace_sriov(c, here.id, &[]));
        assert_eq!(db.read(|c| networks::sriov_of_pm(c, here.id)), []);
    });
}

#[test]
fn storage_of_a_host_and_the_peers_of_its_cluster() {
    on_both(|db| {
        let here = pm(1);
        db.write(|c| pms::save(c, &here));
        let storage = |category| Storage {
            category,
            uuid: Some("1111-aaaa".to_owned()),
            usage: Some(Usage { size: MiB(1 << 40), free: MiB(7) }),
            mount_point: Some("/srv 가".to_owned()),
            target_ip: None,
            target: None,
        };
        let bare = Storage {
            uuid: None,
            usage: None,
            mount_point: None,
            target_ip: Some("10.0.0.5".to_owned()),
            target: Some("iqn.x".to_owned()),
            ..storage(StorageCategory::Iscsi)
        };
        let all = [storage(StorageCategory::Ocfs2), bare, storage(StorageCategory::Ocfs2)];
        let peer = |number| Ocfs2Peer { ip: "10.0.0.2".to_owned(), name: format!("node{number}"), number };
        let peers = [peer(2), peer(1)];
        for _ in 0..2 {
            db.write(|c| storages::replace(c, here.id, &all, &peers));
            assert_eq!(db.read(|c| storages::of_pm(c, here.id)), all);
            assert_eq!(db.read(|c| storages::peers_of_pm(c, here.id)), peers, "of two file systems, each once");
        }
        db.write(|c| storages::replace(c, here.id, &all[1..2], &peers[..1]));
        assert_eq!(db.read(|c| storages::of_pm(c, here.id)), all[1..2]);
        assert_eq!(db.read(|c| storages::peers_of_pm(c, here.id)), peers[..1], "also without a mount");
        db.write(|c| storages::replace(c, here.id, &[], &[]));
        assert_eq!(db.read(|c| storages::of_pm(c, here.id)), []);
        assert_eq!(kind(db.store.write_tx(|c| storages::replace(c, pm(3).id, &all, &[]))), "in_use");
    });
}

#[test]
fn a_host_records_the_domains_of_its_own_vms_and_templates() {
    on_both(|db| {
        let (here, there) = (pm(1), pm(2));
        let (image, web, other) = (template(&here, 1), vm(&here, None, 2), vm(&there, None, 3));
        db.write(|c| {
            pms::save(c, &here)?;
            pms::save(c, &there)?;
            templates::insert(c, &image)?;
            vms::insert(c, &web)?;
            vms::insert(c, &other)
        });
        let domain = Template::domain(image.id);
        let of = |pm: &Pm| db.read(|c| seen::of_pm(c, pm.id));
        assert_eq!(of(&here), [(web.id, Seen::default()), (domain, Seen::default())]);
        let running = Seen { state: PowerState::Running, vnc_port: Some(65_535) };
        let paused = Seen { state: PowerState::Paused, vnc_port: None };
        db.write(|c| {
            seen::record(c, here.id, web.id, running)?;
            seen::record(c, here.id, domain, paused)?;
            // Neither what is another host's nor what is gone.
            seen::record(c, here.id, other.id, running)?;
            seen::record(c, here.id, VmId(Uuid::from_u128(9)), running)
        });
        assert_eq!(of(&here), [(web.id, running), (domain, paused)]);
        assert_eq!(of(&there), [(other.id, Seen::default())]);
        assert_eq!(db.read(|c| vms::find(c, web.id)).unwrap().seen, running);
        assert_eq!(db.read(|c| templates::find(c, image.id)).unwrap().seen, paused);
    });
}

#[test]
fn storlinks_have_numbers_and_names_of_their_pm() {
    on_both(|db| {
        let (here, there) = (pm(1), pm(2));
        db.write(|c| pms::save(c, &here).and_then(|()| pms::save(c, &there)));
        let new = new_storlink(&here, "로컬 저장소");
        let id = db.write(|c| storlinks::insert(c, &new));
        let other = db.write(|c| storlinks::insert(c, &new_storlink(&there, "로컬 저장소")));
        assert_ne!(id, other);
        let stored = Storlink {
            id,
            uuid: new.uuid,
            pm: here.id,
            name: new.name.clone(),
            link: new.link.clone(),
            kind: new.kind,
            level: new.level,
            usage: new.usage,
            desc: new.desc.clone(),
            shared: true,
            marked: false,
        };
        assert_eq!(db.read(|c| storlinks::find(c, id)), Some(stored.clone()));
        assert_eq!(db.read(|c| storlinks::find_by_name(c, here.id, "로컬 저장소")), Some(stored.clone()));
        assert_eq!(db.read(|c| storlinks::find_by_name(c, here.id, "x")), None);
        assert_eq!(db.read(|c| storlinks::find(c, StorlinkId(99))), None);

        let usage = Usage { size: MiB(1 << 40), free: MiB(0) };
        db.write(|c| storlinks::set_usage(c, id, usage));
        assert_eq!(db.read(storlinks::all)[0], Storlink { usage, ..stored });
        assert_eq!(kind(db.store.write_tx(|c| storlinks::set_usage(c, StorlinkId(99), usage))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| storlinks::insert(c, &new_storlink(&here, "로컬 저장소")))), "exists");
        assert_eq!(kind(db.store.write_tx(|c| storlinks::insert(c, &new_storlink(&pm(3), "x")))), "in_use");
    });
}

#[test]
fn storlinks_change_and_go() {
    on_both(|db| {
        let pm = pm(1);
        let (one, two) = db.write(|c| {
            pms::save(c, &pm)?;
            Ok((storlinks::insert(c, &new_storlink(&pm, "one"))?, storlinks::insert(c, &new_storlink(&pm, "two"))?))
        });
        let old = db.read(|c| storlinks::find(c, one)).unwrap();
        let new = Storlink {
            name: "하나".to_owned(),
            link: "/elsewhere".to_owned(),
            kind: StorlinkType::Nfs,
            level: StorlinkLevel::Object,
            desc: "moved".to_owned(),
            shared: !old.shared,
            ..old
        };
        db.write(|c| storlinks::update(c, &new));
        assert_eq!(db.read(|c| storlinks::find(c, one)), Some(new.clone()));
        db.write(|c| storlinks::set_marked(c, one));
        let new = Storlink { marked: true, ..new };
        assert_eq!(db.read(|c| storlinks::find(c, one)), Some(new.clone()));
        assert_eq!(kind(db.store.write_tx(|c| storlinks::set_marked(c, StorlinkId(99)))), "not_found");
        let twin = Storlink { name: "two".to_owned(), ..new.clone() };
        assert_eq!(kind(db.store.write_tx(|c| storlinks::update(c, &twin))), "exists");
        db.write(|c| storlinks::remove(c, one));
        assert_eq!(db.read(storlinks::all).iter().map(|s| s.id).collect::<Vec<_>>(), [two]);
        assert_eq!(kind(db.store.write_tx(|c| storlinks::update(c, &new))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| storlinks::remove(c, one))), "not_found");
    });
}

#[test]
fn everything_that_needs_a_storlink_is_found() {
    on_both(|db| {
        let (here, there) = (pm(1), pm(2));
        let (base, web) = (template(&here, 1), vm(&there, None, 3));
        // Its number begins with the number of the first, as `11/a.iso` does with `1`.
        let (link, others) = db.write(|c| {
            pms::save(c, &here)?;
            pms::save(c, &there)?;
            let link = storlinks::insert(c, &new_storlink(&here, "s"))?;
            let more = (0..20).map(|n| storlinks::insert(c, &new_storlink(&here, &format!("s{n}"))));
            Ok((link, more.collect::<pengx::error::Result<Vec<_>>>()?))
        });
        let other = *others.iter().find(|id| **id != link && id.to_string().starts_with(&link.to_string())).unwrap();
        let disc = |storlink: StorlinkId| Some(format!("{storlink}/a.iso").parse::<Iso>().unwrap());
        let base = Template { iso: disc(other), ..base };
        let web = Vm { iso: disc(link), ..web };
        db.write(|c| {
            templates::insert(c, &base)?;
            vms::insert(c, &web)
        });
        let using = |what, by: &str, pm: Option<PmId>| Use { what, by: by.to_owned(), pm };
        let discs = [using(UseKind::Disc, "vm vm3", Some(there.id))];
        assert_eq!(db.read(|c| storlinks::uses(c, link)), discs);
        assert_eq!(db.read(|c| storlinks::uses(c, other)), [using(UseKind::Disc, "template template1", Some(here.id))]);
        let task = task(&here, 1);
        let volume = VolumeName::new(DiskId(Uuid::from_u128(7)), Format::Raw);
        let first = disk(DiskOwner::Template(base.id), 0, link, 1);
        db.write(|c| {
            disks::insert(c, &first)?;
            disks::insert(c, &Disk { created_at: at(500), ..disk(DiskOwner::Vm(web.id), 0, link, 1) })?;
            disks::insert(c, &disk(DiskOwner::Vm(web.id), 1, other, 1))?;
            tasks::insert(c, &task)?;
            let forward = Compensation::PurgeVolume { storlink: link, volume };
            journal::push(c, task.id, 1, Direction::Forward, &forward)?;
            journal::push(c, task.id, 2, Direction::Undo, &Compensation::Undefine { vm: web.id })
        });
        db.execute(&format!(
            "INSERT INTO backups (id, vm, name, storlink, size, description, created_at)
             VALUES ('{}', '{}', 'monday', {link}, 1, '', '2017-07-26 15:04:05')",
            Uuid::from_u128(5),
            web.id
        ));
        assert_eq!(
            db.read(|c| storlinks::uses(c, link)),
            [
                using(UseKind::Disk, "template template1", Some(here.id)),
                using(UseKind::Disk, "vm vm3", Some(there.id)),
                using(UseKind::Backup, "backup monday", None),
                using(UseKind::Disc, "vm vm3", Some(there.id)),
                using(UseKind::Volume, &format!("task {}", task.id), None),
            ]
        );
        assert_eq!(kind(db.store.write_tx(|c| storlinks::remove(c, link))), "in_use");
    });
}

#[test]
fn templates_change_and_go_when_nothing_is_made_from_them() {
    on_both(|db| {
        let pm = pm(1);
        let (one, two, web) = (template(&pm, 1), template(&pm, 2), vm(&pm, Some(template(&pm, 1).id), 1));
        let link = db.write(|c| {
            pms::save(c, &pm)?;
            templates::insert(c, &one)?;
            templates::insert(c, &two)?;
            vms::insert(c, &web)?;
            storlinks::insert(c, &new_storlink(&pm, "s"))
        });
        db.write(|c| disks::insert(c, &disk(DiskOwner::Template(one.id), 0, link, 10)));
        let new = Template {
            name: "데비안".to_owned(),
            os: Os::Arch,
            os_arch: OsArch::X86,
            desc: "changed".to_owned(),
            iso: Some("1/a b.iso".parse().unwrap()),
            vnc_password: Some(Secret::new("s3cret".to_owned())),
            recent_booted_at: Some(at(9)),
            updated_at: at(10),
            ..one.clone()
        };
        db.write(|c| templates::update(c, &new));
        assert_eq!(db.read(|c| templates::find(c, one.id)), Some(new.clone()));
        let listed = db.read(|c| templates::listing_of(c, one.id)).unwrap();
        assert_eq!((listed.template, listed.size), (new.clone(), MiB(10)));
        assert_eq!(db.read(|c| templates::listing_of(c, template(&pm, 9).id)), None);
        let plain = Template { iso: None, vnc_password: None, recent_booted_at: None, ..new };
        db.write(|c| templates::update(c, &plain));
        assert_eq!(db.read(|c| templates::find(c, one.id)), Some(plain.clone()), "what is none is emptied");
        let twin = Template { name: two.name.clone(), ..plain };
        assert_eq!(kind(db.store.write_tx(|c| templates::update(c, &twin))), "exists");
        assert_eq!(db.read(|c| templates::vms_of(c, one.id)), ["vm1"]);
        assert!(db.read(|c| templates::vms_of(c, two.id)).is_empty());
        assert_eq!(kind(db.store.write_tx(|c| templates::remove(c, one.id))), "in_use");
        db.write(|c| vms::remove(c, web.id));
        assert_eq!(kind(db.store.write_tx(|c| templates::remove(c, one.id))), "in_use", "its disk is there");
        db.write(|c| disks::remove_of_template(c, one.id).and_then(|()| templates::remove(c, one.id)));
        assert_eq!(db.read(templates::all), [two]);
        assert_eq!(kind(db.store.write_tx(|c| templates::remove(c, one.id))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| templates::update(c, &one))), "not_found");
    });
}

#[test]
fn templates_and_their_disks() {
    on_both(|db| {
        let pm = pm(1);
        let (a, b) = (template(&pm, 1), Template { recent_booted_at: Some(at(7)), ..template(&pm, 2) });
        let link = db.write(|c| {
            pms::save(c, &pm)?;
            templates::insert(c, &b)?;
            templates::insert(c, &a)?;
            storlinks::insert(c, &new_storlink(&pm, "s"))
        });
        let (root, data) = (disk(DiskOwner::Template(a.id), 0, link, 10), disk(DiskOwner::Template(a.id), 1, link, 5));
        db.write(|c| disks::insert(c, &data).and_then(|()| disks::insert(c, &root)));
        assert_eq!(db.read(templates::all), [a.clone(), b.clone()]);
        assert_eq!(db.read(|c| templates::find(c, b.id)), Some(b.clone()));
        assert_eq!(db.read(|c| templates::find(c, template(&pm, 3).id)), None);
        assert_eq!(db.read(|c| templates::find_by_name(c, "template1")), Some(a.clone()));
        assert_eq!(db.read(|c| templates::find_by_name(c, "Template1")), None);
        assert_eq!(db.read(|c| disks::of_template(c, a.id)), [root, data]);
        let sizes: Vec<_> = db.read(templates::listing).into_iter().map(|l| (l.template.id, l.size)).collect();
        assert_eq!(sizes, [(a.id, MiB(15)), (b.id, MiB(0))]);
        let twin = Template { name: "template1".to_owned(), ..template(&pm, 4) };
        assert_eq!(kind(db.store.write_tx(|c| templates::insert(c, &twin))), "exists");
    });
}

#[test]
fn vms_disks_and_nics_come_and_go_together() {
    on_both(|db| {
        let pm = pm(1);
        let base = template(&pm, 1);
        let (web, lone) = (vm(&pm, Some(base.id), 1), Vm { created_at: at(-5), ..vm(&pm, None, 2) });
        let (link, eth1, eth0) = db.write(|c| {
            pms::save(c, &pm)?;
            templates::insert(c, &base)?;
            vms::insert(c, &web)?;
            vms::insert(c, &lone)?;
            let eth1 = nics::insert(c, &nic(&web, "eth1", 2))?;
            let eth0 = nics::insert(c, &nic(&web, "eth0", 1))?;
            Ok((storlinks::insert(c, &new_storlink(&pm, "s"))?, eth1, eth0))
        });
        let root = Disk { desc: Some("root".to_owned()), ..disk(DiskOwner::Vm(web.id), 0, link, 10) };
        let data = disk(DiskOwner::Vm(web.id), 1, link, 20);
        db.write(|c| disks::insert(c, &data).and_then(|()| disks::insert(c, &root)));
        assert_eq!(db.read(|c| vms::find(c, web.id)), Some(web.clone()));
        assert_eq!(db.read(|c| vms::find_by_name(c, "vm2")), Some(lone.clone()));
        assert_eq!(db.read(|c| vms::find_by_name(c, "vm3")), None);
        assert_eq!(db.read(|c| disks::of_vm(c, web.id)), [root.clone(), data.clone()]);
        assert_eq!(db.read(|c| disks::find(c, root.id)), Some(root.clone()));
        assert_eq!(db.read(|c| disks::holder(c, link, &root.volume)), Some(root.clone()));
        assert_eq!(db.read(|c| disks::holder(c, StorlinkId(99), &root.volume)), None);
        assert_eq!(db.read(|c| nics::of_vm(c, web.id)).iter().map(|n| n.id).collect::<Vec<_>>(), [eth1, eth0]);
        assert!(db.read(|c| nics::mac_taken(c, Mac([0, 0x16, 0x3e, 0, 0, 1]))));
        assert!(!db.read(|c| nics::mac_taken(c, Mac([0, 0x16, 0x3e, 0, 0, 9]))));

        let listing = db.read(vms::listing);
        assert_eq!(listing.iter().map(|l| l.vm.id).collect::<Vec<_>>(), [lone.id, web.id], "by created_at");
        assert_eq!((listing[1].disk_size, listing[1].nics.len()), (MiB(30), 2));
        assert_eq!((listing[1].os, listing[1].os_arch), (Some(Os::Debian), Some(OsArch::X64)));
        assert_eq!((listing[0].disk_size, listing[0].nics.len(), listing[0].os), (MiB(0), 0, None));
        for listed in listing {
            assert_eq!(db.read(|c| vms::listing_of(c, listed.vm.id)), Some(listed));
        }
        assert_eq!(db.read(|c| vms::listing_of(c, vm(&pm, None, 3).id)), None);

        for (what, result) in [
            (
                "same volume",
                db.store.write_tx(|c| disks::insert(c, &Disk { id: DiskId(Uuid::new_v4()), order: 5, ..root.clone() })),
            ),
            ("same order", db.store.write_tx(|c| disks::insert(c, &disk(DiskOwner::Vm(web.id), 1, link, 1)))),
            ("same name", db.store.write_tx(|c| vms::insert(c, &Vm { name: "vm1".to_owned(), ..vm(&pm, None, 9) }))),
            ("same mac", db.store.write_tx(|c| nics::insert(c, &nic(&lone, "eth0", 1)).map(drop))),
            ("same nic name", db.store.write_tx(|c| nics::insert(c, &nic(&web, "eth0", 7)).map(drop))),
        ] {
            assert_eq!(kind(result), "exists", "{what}");
        }
        assert_eq!(kind(db.store.write_tx(|c| vms::remove(c, web.id))), "in_use");
        db.write(|c| vms::set_booted(c, web.id, at(60)));
        assert_eq!(db.read(|c| vms::find(c, web.id)).unwrap().recent_booted_at, Some(at(60)));
        let changed = Vm {
            name: "웹".to_owned(),
            desc: "d".to_owned(),
            cpu: 7,
            memory: MiB(8),
            maxmem: MiB(9),
            iso: Some("1/a b.iso".parse().unwrap()),
            recent_booted_at: Some(at(60)),
            updated_at: at(70),
            ..web.clone()
        };
        let others = Vm {
            vnc_password: Secret::new("no".to_owned()),
            recent_booted_at: None,
            created_at: at(9),
            ..changed.clone()
        };
        db.write(|c| vms::update(c, &others));
        assert_eq!(db.read(|c| vms::find(c, web.id)), Some(changed.clone()), "nothing but what may change");
        db.write(|c| vms::update(c, &Vm { iso: None, ..changed.clone() }));
        assert_eq!(db.read(|c| vms::find(c, web.id)).unwrap().iso, None);
        assert_eq!(
            kind(db.store.write_tx(|c| vms::update(c, &Vm { name: "vm2".to_owned(), ..changed.clone() }))),
            "exists"
        );
        assert_eq!(kind(db.store.write_tx(|c| vms::update(c, &vm(&pm, None, 3)))), "not_found");
        db.write(|c| {
            disks::remove_of_vm(c, web.id)?;
            nics::remove_of_vm(c, web.id)?;
            vms::remove(c, web.id)
        });
        assert_eq!(db.read(vms::listing).len(), 1);
        assert_eq!(db.read(|c| disks::find(c, data.id)), None);
        assert_eq!(kind(db.store.write_tx(|c| vms::remove(c, web.id))), "not_found");
        assert_eq!(kind(db.store.write_tx(|c| vms::set_booted(c, web.id, at(0)))), "not_found");
    });
}

#[test]
fn tasks_from_queued_to_their_outcome() {
    on_both(|db| {
        let (mine, other) = (pm(1), pm(2));
        let (mut a, mut b, c3) = (task(&mine, 1), task(&mine, 2), task(&other, 3));
        (a.account, b.account) = (Some("ann".to_owned()), Some("bob".to_owned()));
        db.write(|c| {
            pms::save(c, &mine)?;
            pms::save(c, &other)?;
            [&b, &a, &c3].into_iter().try_for_each(|t| tasks::insert(c, t))
        });
        assert_eq!(db.read(|c| tasks::find(c, a.id)), Some(a.clone()));
        assert_eq!(db.read(|c| tasks::recent(c, 2)), [c3.clone(), b.clone()]);
        assert_eq!(db.read(|c| tasks::recent_of(c, "ann", 2)), [a.clone()]);
        assert_eq!(db.read(|c| tasks::recent_of(c, "Ann", 2)), []);
        assert_eq!(db.read(|c| tasks::unfinished(c, mine.id)), [a.clone(), b.clone()]);

        db.write(|c| tasks::start(c, a.id, at(20)).and_then(|()| tasks::note(c, a.id, 40, "copying vda")));
        let running = Task {
            state: TaskState::Running,
            started_at: Some(at(20)),
            percent: 40,
            step: "copying vda".to_owned(),
            ..a.clone()
        };
        assert_eq!(db.read(|c| tasks::find(c, a.id)), Some(running.clone()));
        assert_eq!(db.read(|c| tasks::unfinished(c, mine.id)), [running.clone(), b.clone()]);
        db.write(|c| {
            tasks::finish(c, a.id, TaskState::Failure, Some("no_space"), Some("too little room"), at(30))?;
            tasks::note(c, a.id, 90, "late")?;
            tasks::settle(c, b.id, "made vm2")?;
            tasks::finish(c, b.id, TaskState::Success, None, None, at(31))
        });
        let failed = Task {
            state: TaskState::Failure,
            error: Some("no_space".to_owned()),
            message: "too little room".to_owned(),
            ended_at: Some(at(30)),
            ..running
        };
        assert_eq!(db.read(|c| tasks::find(c, a.id)), Some(failed));
        assert_eq!(db.read(|c| tasks::find(c, b.id)).unwrap().percent, 100);
        assert_eq!(db.read(|c| tasks::unfinished(c, mine.id)), []);
        let absent = TaskId(Uuid::from_u128(9));
        assert_eq!(db.read(|c| tasks::find(c, absent)), None);
        assert_eq!(kind(db.store.note_tx(|c| tasks::start(c, absent, at(0)))), "not_found");
    });
}

fn lock(resource: &Resource, access: Access) -> Lock {
    Lock { resource: resource.clone(), access }
}

#[test]
fn locks_exclude_share_and_come_all_or_none() {
    on_both(|db| {
        let pm = pm(1);
        let [a, b, c3] = [1, 2, 3].map(|n| task(&pm, n));
        db.write(|c| pms::save(c, &pm).and_then(|()| [&a, &b, &c3].into_iter().try_for_each(|t| tasks::insert(c, t))));
        let (web, link) = (Resource::Vm(VmId(Uuid::from_u128(1))), Resource::Storlink(StorlinkId(1)));
        let name = Resource::Name("vm", "웹🐧".to_owned());
        let take = |t: &Task, wanted: &[Lock]| db.store.note_tx(|c| locks::acquire(c, t.id, wanted)).unwrap();

        let of_a = [lock(&web, Access::Uses), lock(&link, Access::Uses), lock(&web, Access::Changes)];
        assert_eq!(take(&a, &of_a), None);
        assert_eq!(take(&b, &[lock(&link, Access::Uses), lock(&name, Access::Changes)]), None);
        db.write(|c| tasks::start(c, a.id, at(77)));
        let in_the_way = Holder { task: a.id, kind: a.kind, since: at(77), resource: web.to_string() };
        assert_eq!(take(&c3, &[lock(&link, Access::Uses), lock(&web, Access::Uses)]), Some(in_the_way.clone()));
        assert_eq!(take(&c3, &[lock(&web, Access::Changes), lock(&link, Access::Changes)]), Some(in_the_way));
        let queued = take(&c3, &[lock(&name, Access::Uses)]).unwrap();
        assert_eq!((queued.task, queued.since), (b.id, b.created_at));
        assert!(db.read(|c| locks::of_task(c, c3.id)).is_empty(), "a conflict takes nothing");
        assert_eq!(take(&c3, &[lock(&link, Access::Changes)]).map(|h| h.task), Some(a.id));
        assert_eq!(take(&c3, &[lock(&link, Access::Uses)]), None);

        assert_eq!(take(&a, &of_a), None, "again");
        let held = db.read(|c| locks::of_task(c, a.id));
        let one = |resource: &Resource, access| Held { resource: resource.to_string(), task: a.id, access };
        assert_eq!(held, [one(&link, Access::Uses), one(&web, Access::Changes)]);
        assert_eq!(db.read(locks::all).len(), 5);
        assert!(db.read(|c| locks::changing(c, &web)));
        assert!(db.read(|c| locks::changing(c, &name)));
        assert!(!db.read(|c| locks::changing(c, &link)));

        db.write(|c| locks::release(c, a.id).and_then(|()| locks::release(c, b.id)));
        assert_eq!(
            take(&c3, &[lock(&link, Access::Changes), lock(&web, Access::Uses)]),
            None,
            "grows when it is alone"
        );
        assert!(db.read(|c| locks::changing(c, &link)));
        assert_eq!(take(&b, &[]), None);
        db.write(|c| locks::release(c, c3.id));
        assert!(db.read(locks::all).is_empty());
    });
}

#[test]
fn the_journal_keeps_what_is_left_to_do() {
    on_both(|db| {
        let (mine, other) = (pm(1), pm(2));
        let (a, b, foreign) = (task(&mine, 2), task(&mine, 1), task(&other, 3));
        let undo = Compensation::Undefine { vm: VmId(Uuid::from_u128(1)) };
        let volume = VolumeName::new(DiskId(Uuid::from_u128(7)), Format::Raw);
        let forward = Compensation::PurgeVolume { storlink: StorlinkId(3), volume };
        db.write(|c| {
            pms::save(c, &mine)?;
            pms::save(c, &other)?;
            [&a, &b, &foreign].into_iter().try_for_each(|t| tasks::insert(c, t))?;
            journal::push(c, a.id, 2, Direction::Forward, &forward)?;
            journal::push(c, a.id, 1, Direction::Undo, &undo)?;
            journal::push(c, a.id, 10, Direction::Undo, &undo)?;
            journal::push(c, b.id, 1, Direction::Undo, &undo)?;
            journal::push(c, foreign.id, 1, Direction::Undo, &undo)
        });
        let entry =
            |seq, direction, compensation: &Compensation| Entry { seq, direction, compensation: compensation.clone() };
        let all = [
            entry(1, Direction::Undo, &undo),
            entry(2, Direction::Forward, &forward),
            entry(10, Direction::Undo, &undo),
        ];
        assert_eq!(db.read(|c| journal::of_task(c, a.id)), all);
        assert_eq!(db.read(|c| journal::pending(c, mine.id)), [b.id, a.id], "the oldest first");
        assert_eq!(db.read(journal::all).len(), 5);
        assert_eq!(kind(db.store.note_tx(|c| journal::push(c, a.id, 2, Direction::Undo, &undo))), "exists");
        db.write(|c| journal::clear_undo(c, a.id));
        assert_eq!(db.read(|c| journal::of_task(c, a.id)), [entry(2, Direction::Forward, &forward)]);
        db.write(|c| journal::remove(c, a.id, 2).and_then(|()| journal::remove(c, a.id, 99)));
        assert_eq!(db.read(|c| journal::pending(c, mine.id)), [b.id]);
    });
}

#[test]
fn text_of_people_comes_back_as_it_was() {
    on_both(|db| {
        let pm = pm(1);
        let odd = "한글 가상머신 🐧 'quoted\" <&> \\ \u{1112}\u{1161}\u{11ab}\r\n\tend ".to_owned();
        let vm = Vm {
            name: odd.clone(),
            desc: odd.repeat(1000),
            vnc_password: Secret::new(odd.clone()),
            ..vm(&pm, None, 1)
        };
        db.write(|c| pms::save(c, &pm).and_then(|()| vms::insert(c, &vm)));
        assert_eq!(db.read(|c| vms::find_by_name(c, &odd)), Some(vm));
        assert_eq!(db.read(|c| vms::find_by_name(c, &odd.to_uppercase())), None, "names are told apart by case");
    });
}

#[test]
fn a_stored_word_that_nobody_knows_is_a_defect_and_no_panic() {
    on_both(|db| {
        let pm = pm(1);
        db.write(|c| pms::save(c, &pm).and_then(|()| templates::insert(c, &template(&pm, 1))));
        db.write(|c| vms::insert(c, &vm(&pm, Some(template(&pm, 1).id), 1)));
        db.execute("UPDATE templates SET os = 'BEOS'");
        let e = db.store.read(vms::listing).unwrap_err();
        assert_eq!(*e.kind(), ErrorKind::Internal);
        assert!(e.story().contains("templates.os holds \"BEOS\""), "{}", e.story());
    });
}

#[test]
fn a_virtual_function_is_one_vms_at_a_time_on_each_host() {
    on_both(|db| {
        let (here, there) = (pm(1), pm(2));
        let with = |pm: &Pm, n: u128| Vm { pcivf: Some("0000:03:10.1".parse().unwrap()), ..vm(pm, None, n) };
        db.write(|c| pms::save(c, &here).and_then(|()| pms::save(c, &there)));
        db.write(|c| vms::insert(c, &with(&here, 1)).and_then(|()| vms::insert(c, &with(&there, 2))));
        db.write(|c| vms::insert(c, &vm(&here, None, 3)).and_then(|()| vms::insert(c, &vm(&here, None, 4))));
        assert_eq!(kind(db.store.write_tx(|c| vms::insert(c, &with(&here, 5)))), "exists");
        db.write(|c| vms::remove(c, with(&here, 1).id));
        db.write(|c| vms::insert(c, &with(&here, 5)));
    });
}
