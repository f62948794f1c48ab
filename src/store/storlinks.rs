//! Storlinks, with the size and free room that the storage told last.

use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, hit, mib, parse, uuid};
use super::schema::storlinks;
use crate::error::Result;
use crate::model::{PmId, Storlink, StorlinkId, StorlinkLevel, StorlinkType, Usage};

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
