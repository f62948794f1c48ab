//! What changes storlinks and templates.

use pengx::model::*;
use pengx::operations::storlink::{DeleteStorlink, UpdateStorlink};
use pengx::operations::template::{
    DeleteTemplate, NewTemplate, PoweroffTemplate, ShutdownTemplate, StartTemplate, UpdateTemplate,
};

use super::{Scenario, state};
use crate::harness::app::App;
use crate::harness::world::World;

pub(super) fn storlink_scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "storlink.update",
            prepare: |app| {
                app.storlink();
                std::fs::create_dir(app.site.dir.path().join("store2")).unwrap();
                None
            },
            run: |app, _| {
                app.run(UpdateStorlink {
                    storlink: StorlinkId(1),
                    name: Some("store2".parse().unwrap()),
                    link: Some(app.site.dir.path().join("store2").to_str().unwrap().to_owned()),
                    kind: Some(StorlinkType::Nfs),
                    level: None,
                    desc: Some("moved".to_owned()),
                    shared: Some(true),
                })
            },
            done: |app, _| {
                let all = app.store().read(pengx::store::storlinks::all).unwrap();
                let [one] = &all[..] else { return false };
                one.name == "store2" && one.link.ends_with("/store2") && one.kind == StorlinkType::Nfs && one.shared
            },
        },
        Scenario {
            name: "storlink.delete",
            prepare: |app| {
                app.storlink();
                None
            },
            run: |app, _| app.run(DeleteStorlink { storlink: StorlinkId(1) }),
            done: |app, _| app.store().read(pengx::store::storlinks::all).unwrap().is_empty(),
        },
    ]
}

pub(super) fn template_scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "template.new",
            prepare: |app| {
                app.storlink();
                None
            },
            run: |app, _| app.run(new_template()).map(drop),
            done: |app, _| {
                let all = app.store().read(pengx::store::templates::listing).unwrap();
                matches!(&all[..], [one] if one.size == MiB(4)) && World::of(app).files.len() == 1
            },
        },
        Scenario {
            name: "template.update",
            prepare: |app| Some(template(app)),
            run: |app, vm| {
                app.run(UpdateTemplate {
                    template: of_domain(vm),
                    name: Some("renamed".parse().unwrap()),
                    os: Some(Os::Arch),
                    os_arch: None,
                    desc: None,
                    iso: Some(Some("1/a.iso".parse().unwrap())),
                })
            },
            done: |app, vm| {
                let found = app.store().read(|c| pengx::store::templates::find(c, of_domain(vm))).unwrap().unwrap();
                found.name == "renamed" && found.os == Os::Arch && found.iso.is_some()
            },
        },
        Scenario {
            name: "template.start",
            prepare: |app| Some(template(app)),
            run: |app, vm| app.run(start_template(vm)),
            done: |app, vm| {
                let found = app.store().read(|c| pengx::store::templates::find(c, of_domain(vm))).unwrap().unwrap();
                let kept = found.vnc_password.is_some() && found.recent_booted_at.is_some() && found.iso.is_some();
                kept && state(app, vm) == Some(PowerState::Running)
            },
        },
        Scenario {
            name: "template.shutdown",
            prepare: |app| Some(started_template(app)),
            run: |app, vm| app.run(ShutdownTemplate { template: of_domain(vm) }),
            done: |app, vm| state(app, vm) != Some(PowerState::Running),
        },
        Scenario {
            name: "template.poweroff",
            prepare: |app| Some(started_template(app)),
            run: |app, vm| app.run(PoweroffTemplate { template: of_domain(vm) }),
            done: |app, vm| state(app, vm) != Some(PowerState::Running),
        },
        Scenario {
            name: "template.delete",
            prepare: |app| {
                let vm = started_template(app);
                assert!(app.site.fake.power_off_inside(vm), "its definition stays");
                Some(vm)
            },
            run: |app, vm| app.run(DeleteTemplate { template: of_domain(vm) }),
            done: |app, vm| {
                let all = app.store().read(pengx::store::templates::all).unwrap();
                all.is_empty() && state(app, vm).is_none() && World::of(app).files.len() == 1
            },
        },
    ]
}

fn new_template() -> NewTemplate {
    NewTemplate {
        name: "t".parse().unwrap(),
        os: Os::Other,
        os_arch: OsArch::X64,
        desc: String::new(),
        storlink: StorlinkId(1),
        size: MiB(4),
        format: Format::Qcow2,
        iso: None,
    }
}

/// An empty template, and a disc to install it from; its domain.
fn template(app: &App) -> VmId {
    app.storlink();
    std::fs::write(app.site.store_dir().join("a.iso"), "an installer").unwrap();
    Template::domain(app.run(new_template()).unwrap())
}

fn started_template(app: &App) -> VmId {
    let vm = template(app);
    app.run(start_template(Some(vm))).unwrap();
    vm
}

fn start_template(vm: Option<VmId>) -> StartTemplate {
    let iso = Some(Some("1/a.iso".parse().unwrap()));
    StartTemplate { template: of_domain(vm), iso, cpu: 1, memory: MiB(64), networks: vec!["0".to_owned()] }
}

fn of_domain(vm: Option<VmId>) -> TemplateId {
    TemplateId(vm.unwrap().0)
}
