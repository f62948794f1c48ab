//! Templates.

use std::collections::HashMap;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::rows::{hit, mib, number, parse, parse_optional};
use super::schema::{disks, templates, vms};
use crate::error::Result;
use crate::model::{MiB, Secret, Seen, Template, TemplateId};

/// A template as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateListing {
    pub template: Template,
    /// Of all its disks.
    pub size: MiB,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = templates, treat_none_as_default_value = false)]
struct TemplateRow {
    id: String,
    name: String,
    os: String,
    os_arch: String,
    description: String,
    pm: String,
    created_at: NaiveDateTime,
    recent_booted_at: Option<NaiveDateTime>,
    updated_at: NaiveDateTime,
    state: String,
    vnc_port: Option<i32>,
    iso: Option<String>,
    vnc_password: Option<String>,
}

impl TemplateRow {
    fn model(self) -> Result<Template> {
        Ok(Template {
            id: parse("templates.id", &self.id)?,
            name: self.name,
            os: parse("templates.os", &self.os)?,
            os_arch: parse("templates.os_arch", &self.os_arch)?,
            desc: self.description,
            pm: parse("templates.pm", &self.pm)?,
            seen: Seen {
                state: parse("templates.state", &self.state)?,
                vnc_port: self.vnc_port.map(|port| number("templates.vnc_port", port)).transpose()?,
            },
            iso: parse_optional("templates.iso", self.iso)?,
            vnc_password: self.vnc_password.map(Secret::new),
            created_at: self.created_at,
            recent_booted_at: self.recent_booted_at,
            updated_at: self.updated_at,
        })
    }
}

/// The oldest first.
pub fn all(c: &mut Conn) -> Result<Vec<Template>> {
    let rows = templates::table.order((templates::created_at, templates::id)).load::<TemplateRow>(&mut c.0)?;
    rows.into_iter().map(TemplateRow::model).collect()
}

pub fn find(c: &mut Conn, id: TemplateId) -> Result<Option<Template>> {
    let row = templates::table.find(id.to_string()).first::<TemplateRow>(&mut c.0).optional()?;
    row.map(TemplateRow::model).transpose()
}

pub fn find_by_name(c: &mut Conn, name: &str) -> Result<Option<Template>> {
    let row = templates::table.filter(templates::name.eq(name)).first::<TemplateRow>(&mut c.0).optional()?;
    row.map(TemplateRow::model).transpose()
}

/// # Errors
/// `Exists` if the id or the name is taken.
pub fn insert(c: &mut Conn, template: &Template) -> Result<()> {
    let row = TemplateRow {
        id: template.id.to_string(),
        name: template.name.clone(),
        os: template.os.to_string(),
        os_arch: template.os_arch.to_string(),
        description: template.desc.clone(),
        pm: template.pm.to_string(),
        created_at: template.created_at,
        recent_booted_at: template.recent_booted_at,
        updated_at: template.updated_at,
        state: template.seen.state.to_string(),
        vnc_port: template.seen.vnc_port.map(i32::from),
        iso: template.iso.as_ref().map(ToString::to_string),
        vnc_password: template.vnc_password.as_ref().map(|secret| secret.reveal().to_owned()),
    };
    diesel::insert_into(templates::table).values(&row).execute(&mut c.0)?;
    Ok(())
}

/// All of its row but what its host saw of its domain; its id, PM and birthday stay for ever.
///
/// # Errors
/// `Exists` if another one has this name.
pub fn update(c: &mut Conn, template: &Template) -> Result<()> {
    let rows = diesel::update(templates::table.find(template.id.to_string()))
        .set((
            templates::name.eq(&template.name),
            templates::os.eq(template.os.word()),
            templates::os_arch.eq(template.os_arch.word()),
            templates::description.eq(&template.desc),
            templates::iso.eq(template.iso.as_ref().map(ToString::to_string)),
            templates::vnc_password.eq(template.vnc_password.as_ref().map(Secret::reveal)),
            templates::recent_booted_at.eq(template.recent_booted_at),
            templates::updated_at.eq(template.updated_at),
        ))
        .execute(&mut c.0)?;
    hit(rows, "template", template.id)
}

/// # Errors
/// `InUse` while it has disks or a VM is made from it.
pub fn remove(c: &mut Conn, id: TemplateId) -> Result<()> {
    let rows = diesel::delete(templates::table.find(id.to_string())).execute(&mut c.0)?;
    hit(rows, "template", id)
}

/// The names of the VMs that were made from it, the oldest first.
pub fn vms_of(c: &mut Conn, id: TemplateId) -> Result<Vec<String>> {
    let of_it = vms::table.filter(vms::template.eq(id.to_string()));
    Ok(of_it.order((vms::created_at, vms::id)).select(vms::name).load(&mut c.0)?)
}

/// One, as lists show it.
pub fn listing_of(c: &mut Conn, id: TemplateId) -> Result<Option<TemplateListing>> {
    let Some(template) = find(c, id)? else { return Ok(None) };
    let sizes: Vec<i64> = disks::table.filter(disks::template.eq(id.to_string())).select(disks::size).load(&mut c.0)?;
    let size = sizes.into_iter().map(|size| mib("disks.size", size)).sum::<Result<MiB>>()?;
    Ok(Some(TemplateListing { template, size }))
}

/// All of them, the oldest first, in two queries.
pub fn listing(c: &mut Conn) -> Result<Vec<TemplateListing>> {
    let disks: Vec<(Option<String>, i64)> =
        disks::table.filter(disks::template.is_not_null()).select((disks::template, disks::size)).load(&mut c.0)?;
    let mut sizes: HashMap<TemplateId, MiB> = HashMap::new();
    for (template, size) in disks {
        let sum = sizes.entry(parse("disks.template", &template.unwrap_or_default())?).or_default();
        *sum = *sum + mib("disks.size", size)?;
    }
    let listed = |template: Template| {
        let size = sizes.get(&template.id).copied().unwrap_or_default();
        TemplateListing { template, size }
    };
    Ok(all(c)?.into_iter().map(listed).collect())
}
