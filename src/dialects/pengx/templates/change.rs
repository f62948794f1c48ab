//! Row 16: what is said of a template.

use serde::Deserialize;

use super::super::fields::{Field, Judge, Sent};
use super::super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::TemplateId;
use crate::operations::template::UpdateTemplate;

pub async fn update(mut call: Call) -> Result<Reply, Failure> {
    let command = call.body::<Body>().await?.read(call.template()?)?;
    call.perform(command, |_| Reply::NoContent).await
}

/// What it names changes, all else stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    name: Sent,
    os: Field,
    os_arch: Field,
    desc: Sent,
    /// Not in the manual; empty takes the disc out.
    iso: Sent,
}

impl Body {
    fn read(self, template: TemplateId) -> Result<UpdateTemplate> {
        let mut judge = Judge::default();
        let name = judge.sent_name("name", self.name);
        let os = judge.optional("os", self.os);
        let os_arch = judge.optional("os_arch", self.os_arch);
        let desc = judge.sent_desc("desc", self.desc);
        let iso = judge.sent_or_emptied("iso", self.iso);
        judge.done(|| Some(UpdateTemplate { template, name, os, os_arch, desc, iso }))
    }
}
