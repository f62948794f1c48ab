//! The name that all hosts of a site share, made once.

use diesel::prelude::*;
use uuid::Uuid;

use super::Conn;
use super::rows::uuid as parse;
use super::schema::site;
use crate::error::Result;

/// `None` before the first [`name`].
pub fn find(c: &mut Conn) -> Result<Option<Uuid>> {
    let known = site::table.find(1).select(site::uuid).first::<String>(&mut c.0).optional()?;
    known.map(|known| parse("site.uuid", &known)).transpose()
}

/// `fresh` becomes the site's name if it has none.
pub fn name(c: &mut Conn, fresh: Uuid) -> Result<Uuid> {
    if let Some(known) = find(c)? {
        return Ok(known);
    }
    diesel::insert_into(site::table).values((site::id.eq(1), site::uuid.eq(fresh.to_string()))).execute(&mut c.0)?;
    Ok(fresh)
}
