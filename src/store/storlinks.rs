//! Storlinks, with the size and free room that the storage told last.

use diesel::prelude::*;

use super::rows::{from_mib, hit, mib, parse, parse_optional, uuid};
use super::schema::{backups, disks, snapshots, storlinks, templates, vms};
use super::{Conn, journal};
use crate::error::Result;
use crate::model::{Iso, PmId, Storlink, StorlinkId, StorlinkLevel, StorlinkType, Usage};

/// A storlink that has no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStorlink {
    pub uuid: uuid::Uuid,
    pub pm: PmId,
    pub name: String,
    pub link: String,
    pub kind: StorlinkType,
    pub level: StorlinkLevel,
    pub usage: Usage,
    pub desc: String,
    pub shared: bool,
}

#[derive(Queryable)]
struct StorlinkRow {
    id: i32,
    uuid: String,
    pm: String,
    name: String,
    link: String,
    kind: String,
    level: String,
    size: i64,
    free: i64,
    description: String,
    shared: bool,
    marked: bool,
}

impl StorlinkRow {
    fn model(self) -> Result<Storlink> {
        Ok(Storlink {
            id: StorlinkId(self.id),
            uuid: uuid("storlinks.uuid", &self.uuid)?,
            pm: parse("storlinks.pm", &self.pm)?,
            name: self.name,
            link: self.link,
            kind: parse("storlinks.kind", &self.kind)?,
            level: parse("storlinks.level", &self.level)?,
            usage: Usage { size: mib("storlinks.size", self.size)?, free: mib("storlinks.free", self.free)? },
            desc: self.description,
            shared: self.shared,
            marked: self.marked,
        })
    }
}

/// By number.
pub fn all(c: &mut Conn) -> Result<Vec<Storlink>> {
    let rows = storlinks::table.order(storlinks::id).load::<StorlinkRow>(&mut c.0)?;
    rows.into_iter().map(StorlinkRow::model).collect()
}

pub fn find(c: &mut Conn, id: StorlinkId) -> Result<Option<Storlink>> {
    storlinks::table.find(id.0).first::<StorlinkRow>(&mut c.0).optional()?.map(StorlinkRow::model).transpose()
}

/// The names of a PM's storlinks are unique.
pub fn find_by_name(c: &mut Conn, pm: PmId, name: &str) -> Result<Option<Storlink>> {
    storlinks::table
        .filter(storlinks::pm.eq(pm.to_string()).and(storlinks::name.eq(name)))
        .first::<StorlinkRow>(&mut c.0)
        .optional()?
        .map(StorlinkRow::model)
        .transpose()
}

/// # Errors
/// `Exists` if the PM has one of this name.
pub fn insert(c: &mut Conn, new: &NewStorlink) -> Result<StorlinkId> {
    let id = diesel::insert_into(storlinks::table)
        .values((
            storlinks::uuid.eq(new.uuid.to_string()),
            storlinks::pm.eq(new.pm.to_string()),
            storlinks::name.eq(&new.name),
            storlinks::link.eq(&new.link),
            storlinks::kind.eq(new.kind.word()),
            storlinks::level.eq(new.level.word()),
            storlinks::size.eq(from_mib("storlinks.size", new.usage.size)?),
            storlinks::free.eq(from_mib("storlinks.free", new.usage.free)?),
            storlinks::description.eq(&new.desc),
            storlinks::shared.eq(new.shared),
        ))
        .returning(storlinks::id)
        .get_result(&mut c.0)?;
    Ok(StorlinkId(id))
}

pub fn set_usage(c: &mut Conn, id: StorlinkId, usage: Usage) -> Result<()> {
    let size = from_mib("storlinks.size", usage.size)?;
    let free = from_mib("storlinks.free", usage.free)?;
    let rows = diesel::update(storlinks::table.find(id.0))
        .set((storlinks::size.eq(size), storlinks::free.eq(free)))
        .execute(&mut c.0)?;
    hit(rows, "storlink", id)
}

/// From now on its directory is used only if it carries the mark.
pub fn set_marked(c: &mut Conn, id: StorlinkId) -> Result<()> {
    let rows = diesel::update(storlinks::table.find(id.0)).set(storlinks::marked.eq(true)).execute(&mut c.0)?;
    hit(rows, "storlink", id)
}

/// All of its row but how full it is, which [`set_usage`] keeps, and its number, uuid and PM, which stay for ever; and its
/// mark, which [`set_marked`] notes.
///
/// # Errors
/// `Exists` if the PM has another one of this name.
pub fn update(c: &mut Conn, storlink: &Storlink) -> Result<()> {
    let rows = diesel::update(storlinks::table.find(storlink.id.0))
        .set((
            storlinks::name.eq(&storlink.name),
            storlinks::link.eq(&storlink.link),
            storlinks::kind.eq(storlink.kind.word()),
            storlinks::level.eq(storlink.level.word()),
            storlinks::description.eq(&storlink.desc),
            storlinks::shared.eq(storlink.shared),
        ))
        .execute(&mut c.0)?;
    hit(rows, "storlink", storlink.id)
}

/// # Errors
/// `InUse` while it has disks or backups. See [`uses`] for the rest of what needs it.
pub fn remove(c: &mut Conn, id: StorlinkId) -> Result<()> {
    let rows = diesel::delete(storlinks::table.find(id.0)).execute(&mut c.0)?;
    hit(rows, "storlink", id)
}

/// Something that needs a storlink to be there and to be what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub what: UseKind,
    /// `vm web1`, for sentences.
    pub by: String,
    /// The host that needs it; `None` where no one host does.
    pub pm: Option<PmId>,
}

/// In the order in which uses are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UseKind {
    Disk,
    Backup,
    /// An ISO image in a drive.
    Disc,
    /// A volume that a task has still to remove or to bring back.
    Volume,
}

/// A noun and the PM of everything that has an id.
type Owners = std::collections::HashMap<String, (String, Option<PmId>)>;

/// Everything that needs this storlink, by kind and then by age, in six queries.
pub fn uses(c: &mut Conn, id: StorlinkId) -> Result<Vec<Use>> {
    let mut owners = Owners::new();
    let mut uses = Vec::new();
    let all: Vec<(String, String, String, Option<String>)> =
        vms::table.order((vms::created_at, vms::id)).select((vms::id, vms::name, vms::pm, vms::iso)).load(&mut c.0)?;
    note(&mut owners, &mut uses, id, "vm", all)?;
    let all: Vec<(String, String, String, Option<String>)> = templates::table
        .order((templates::created_at, templates::id))
        .select((templates::id, templates::name, templates::pm, templates::iso))
        .load(&mut c.0)?;
    note(&mut owners, &mut uses, id, "template", all)?;
    let all: Vec<(String, String, String)> =
        snapshots::table.select((snapshots::id, snapshots::name, snapshots::vm)).load(&mut c.0)?;
    for (snapshot, name, vm) in all {
        let pm = owners.get(&vm).and_then(|(_, pm)| *pm);
        owners.insert(snapshot, (format!("snapshot {name}"), pm));
    }
    let all: Vec<(String, String, i32)> = backups::table
        .order((backups::created_at, backups::id))
        .select((backups::id, backups::name, backups::storlink))
        .load(&mut c.0)?;
    for (backup, name, storlink) in all {
        let by = format!("backup {name}");
        if storlink == id.0 {
            uses.push(Use { what: UseKind::Backup, by: by.clone(), pm: None });
        }
        owners.insert(backup, (by, None));
    }
    uses.extend(disks_on(c, id, &owners)?);
    for (task, entry) in journal::all(c)? {
        if entry.compensation.volume().is_some_and(|(storlink, _)| storlink == id) {
            uses.push(Use { what: UseKind::Volume, by: format!("task {task}"), pm: None });
        }
    }
    uses.sort_by_key(|using| using.what);
    Ok(uses)
}

/// Takes down what owners of this kind are called, and which of them have a disc of the storlink.
fn note(
    owners: &mut Owners,
    uses: &mut Vec<Use>,
    id: StorlinkId,
    noun: &str,
    all: Vec<(String, String, String, Option<String>)>,
) -> Result<()> {
    for (owner, name, pm, iso) in all {
        let (by, pm) = (format!("{noun} {name}"), Some(parse("pm", &pm)?));
        let iso: Option<Iso> = parse_optional("iso", iso)?;
        if iso.is_some_and(|iso| iso.storlink == id) {
            uses.push(Use { what: UseKind::Disc, by: by.clone(), pm });
        }
        owners.insert(owner, (by, pm));
    }
    Ok(())
}

type Ends = (Option<String>, Option<String>, Option<String>, Option<String>);

fn disks_on(c: &mut Conn, id: StorlinkId, owners: &Owners) -> Result<Vec<Use>> {
    let all: Vec<Ends> = disks::table
        .filter(disks::storlink.eq(id.0))
        .order((disks::created_at, disks::id))
        .select((disks::vm, disks::template, disks::snapshot, disks::backup))
        .load(&mut c.0)?;
    let named = |(vm, template, snapshot, backup): Ends| {
        let owner = vm.or(template).or(snapshot).or(backup).unwrap_or_default();
        let (by, pm) = owners.get(&owner).cloned().unwrap_or_default();
        Use { what: UseKind::Disk, by, pm }
    };
    Ok(all.into_iter().map(named).collect())
}
