//! Changes a storlink. While something is on it, it stays where and what it is.

use crate::error::{Error, ErrorKind, Problems, Result};
use crate::model::{Access, Lock, Name, Resource, Right, Storlink, StorlinkId, StorlinkLevel, StorlinkType, TaskKind};
use crate::operations::{Core, Operation, guard};
use crate::store::Conn;
use crate::store::storlinks::{self, Use};
use crate::tasks::Work;

use super::{check, contradictions, noun, users};

/// What is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateStorlink {
    pub storlink: StorlinkId,
    pub name: Option<Name>,
    pub link: Option<String>,
    pub kind: Option<StorlinkType>,
    pub level: Option<StorlinkLevel>,
    pub desc: Option<String>,
    pub shared: Option<bool>,
}

impl Operation for UpdateStorlink {
    const KIND: TaskKind = TaskKind::StorlinkUpdate;
    const RIGHT: Right = Right::Administer;
    type Output = ();

    fn subject(&self, core: &Core) -> Result<String> {
        noun(core, self.storlink)
    }

    fn locks(&self) -> Vec<Lock> {
        let mut locks = vec![Lock { resource: Resource::Storlink(self.storlink), access: Access::Changes }];
        if let Some(name) = &self.name {
            locks.push(Lock { resource: Resource::Name("storlink", name.to_string()), access: Access::Changes });
        }
        locks
    }

    fn run(self, core: &Core, work: &mut Work<'_>) -> Result<()> {
        let (old, new) = core.store.read(|c| {
            let old = guard::storlink(c, &core.pm, self.storlink)?;
            let new = self.applied(&old);
            may_become(c, &old, &new)?;
            Ok((old, new))
        })?;
        let moved = places(&old) != places(&new);
        let mut bad = Problems::new();
        if moved {
            for (field, why) in contradictions(Some(&new.link), Some(new.kind), Some(new.level)) {
                bad.add(field, why);
            }
        }
        bad.done()?;
        let usage = moved.then(|| check(core, &new.link, new.kind, new.level)).transpose()?;
        if moved {
            // No undo: it may be another way to the same directory, which must keep its mark. One that is left says nothing.
            let driver = (core.volumes)(&Storlink { marked: false, ..new.clone() })?;
            work.act(|| driver.mark())?;
        }
        work.settle(&format!("storlink {} is changed", new.name), &[], |tx| {
            // Once more, with the writers alone: a task that ends may not hold this lock.
            may_become(tx, &old, &new)?;
            storlinks::update(tx, &new)?;
            if moved {
                storlinks::set_marked(tx, new.id)?;
            }
            usage.map_or(Ok(()), |usage| storlinks::set_usage(tx, new.id, usage))
        })?;
        if moved {
            core.usages.forget(self.storlink);
        }
        Ok(())
    }
}

impl UpdateStorlink {
    fn applied(&self, old: &Storlink) -> Storlink {
        let name = self.name.as_ref().map_or(old.name.clone(), ToString::to_string);
        Storlink {
            name,
            link: self.link.clone().unwrap_or_else(|| old.link.clone()),
            kind: self.kind.unwrap_or(old.kind),
            level: self.level.unwrap_or(old.level),
            desc: self.desc.clone().unwrap_or_else(|| old.desc.clone()),
            shared: self.shared.unwrap_or(old.shared),
            ..old.clone()
        }
    }
}

fn places(storlink: &Storlink) -> (&str, StorlinkType, StorlinkLevel) {
    (&storlink.link, storlink.kind, storlink.level)
}

/// Whether the rows let the one become the other.
fn may_become(c: &mut Conn, old: &Storlink, new: &Storlink) -> Result<()> {
    if new.name != old.name && storlinks::find_by_name(c, old.pm, &new.name)?.is_some() {
        return Err(Error::new(ErrorKind::Exists { what: "storlink", name: new.name.clone() }));
    }
    let uses = storlinks::uses(c, old.id)?;
    let mut bad = Problems::new();
    if let Some(by) = users(&uses) {
        let why = format!("cannot change while the storlink is in use by {by}");
        let changes =
            [("link", old.link != new.link), ("type", old.kind != new.kind), ("level", old.level != new.level)];
        for (field, _) in changes.iter().filter(|(_, changed)| *changed) {
            bad.add(*field, why.clone());
        }
    }
    if old.shared && !new.shared {
        let elsewhere: Vec<Use> = uses.into_iter().filter(|using| using.pm.is_some_and(|pm| pm != old.pm)).collect();
        if let Some(by) = users(&elsewhere) {
            bad.add("shared", format!("must stay True while the storlink is in use on another pm by {by}"));
        }
    }
    bad.done()
}
