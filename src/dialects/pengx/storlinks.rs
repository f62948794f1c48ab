//! Storlinks.

use std::collections::HashSet;

use askama::Template;
use serde::Deserialize;

use super::fields::{Field, Judge, Sent};
use super::style::boolean;
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{IsoFile, MiB, Storlink, StorlinkId, StorlinkLevel, StorlinkType};
use crate::operations::Core;
use crate::operations::storlink::{self, CreateStorlink, DeleteStorlink, UpdateStorlink};

/// Row 8.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    let storlinks = storlink::list(&call.core).await?;
    Reply::ok(&StorlinksView { storlinks: &storlinks, silent: storlink::silent(&call.core) })
}

/// Row 6.
pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let (place, command) = call.body::<CreateBody>().await?.read();
    match command {
        Ok(command) => call.perform(command, |done| Reply::made(done.outcome)).await,
        Err(bad) => {
            let look = move |core: &Core| {
                place.map(|place| storlink::check(core, &place.link, place.kind, place.level)).transpose()
            };
            call.refuse(bad, look).await
        }
    }
}

/// Row 10.
pub async fn read_all(call: Call) -> Result<Reply, Failure> {
    let storlinks = storlink::list_with_pms(&call.core).await?;
    Reply::ok(&AllStorlinksView { storlinks: &storlinks, silent: storlink::silent(&call.core) })
}

/// Row 9.
pub async fn update(mut call: Call) -> Result<Reply, Failure> {
    let command = call.body::<UpdateBody>().await?.read(call.storlink()?)?;
    call.perform(command, |_| Reply::NoContent).await
}

/// Row 7.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteStorlink { storlink: call.storlink()? }, |_| Reply::NoContent).await
}

/// Row 8: `storlinks`.
#[derive(Template)]
#[template(path = "pengx/storlinks.xml")]
pub struct StorlinksView<'a> {
    pub storlinks: &'a [Storlink],
    /// Those that do not answer. The manual's document has no place for it but a comment.
    pub silent: HashSet<StorlinkId>,
}

/// Row 10: as row 8, with the names of the PMs.
#[derive(Template)]
#[template(path = "pengx/storlinks_all.xml")]
pub struct AllStorlinksView<'a> {
    pub storlinks: &'a [(Storlink, String)],
    pub silent: HashSet<StorlinkId>,
}

/// Row 6.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    name: Field,
    link: Field,
    #[serde(rename = "type")]
    kind: Field,
    level: Field,
    desc: Field,
    shared: Field,
}

impl CreateBody {
    /// The place if it can be read which one it is, and the whole command or every problem of the body.
    pub fn read(self) -> (Option<Place>, Result<CreateStorlink>) {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let link: Option<String> = judge.needed_text("link", self.link);
        let kind = judge.needed("type", as_printed(self.kind));
        let level = judge.needed("level", self.level);
        let desc = judge.desc("desc", self.desc);
        let shared = judge.flag("shared", self.shared);
        for (field, why) in storlink::contradictions(link.as_deref(), kind, level) {
            judge.problem(field, why);
        }
        let place = link.clone().zip(kind).zip(level).map(|((link, kind), level)| Place { link, kind, level });
        let command =
            judge.done(|| Some(CreateStorlink { name: name?, link: link?, kind: kind?, level: level?, desc, shared }));
        (place, command)
    }
}

/// What is to be a storlink.
pub struct Place {
    link: String,
    kind: StorlinkType,
    level: StorlinkLevel,
}

/// The manual's example says IO where its list of types says LO.
fn as_printed(kind: Field) -> Field {
    match kind {
        Field::Text(text) if text == "IO" => Field::Text(StorlinkType::Local.word().to_owned()),
        kind => kind,
    }
}

/// Row 9: what it names changes, all else stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UpdateBody {
    name: Sent,
    link: Sent,
    #[serde(rename = "type")]
    kind: Field,
    level: Field,
    desc: Sent,
    shared: Field,
}

impl UpdateBody {
    pub fn read(self, storlink: StorlinkId) -> Result<UpdateStorlink> {
        let mut judge = Judge::default();
        let name = judge.sent_name("name", self.name);
        let link = judge.sent("link", self.link);
        if link.as_ref().is_some_and(String::is_empty) {
            judge.problem("link", "must not be empty");
        }
        let kind = judge.optional("type", as_printed(self.kind));
        let level = judge.optional("level", self.level);
        let desc = judge.sent_desc("desc", self.desc);
        let shared = judge.optional_flag("shared", self.shared);
        judge.done(|| Some(UpdateStorlink { storlink, name, link, kind, level, desc, shared }))
    }
}

/// Not in the manual: the ISO images on a storlink, by name.
pub async fn isos(call: Call) -> Result<Reply, Failure> {
    let storlink = call.storlink()?;
    let isos = storlink::isos(&call.core, storlink).await?;
    Reply::ok(&IsosView { storlink, isos: &isos })
}

/// `isos`.
#[derive(Template)]
#[template(path = "pengx/isos.xml")]
pub struct IsosView<'a> {
    pub storlink: StorlinkId,
    pub isos: &'a [IsoFile],
}

impl IsosView<'_> {
    fn size(iso: &IsoFile) -> MiB {
        MiB::from_bytes_ceil(iso.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::{de, xml};
    use crate::model::Usage;

    fn command(document: &str) -> Result<CreateStorlink, String> {
        let body: CreateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read().1.map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example = "<storlink>\n  <name>store1</name>\n  <link>/data1</link>\n  <desc>VM store1</desc>\n  <type>IO</type>\n  <level>FL</level>\n  <shared>True</shared>\n</storlink>";
        let expected = CreateStorlink {
            name: "store1".parse().unwrap(),
            link: "/data1".to_owned(),
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            desc: "VM store1".to_owned(),
            shared: true,
        };
        assert_eq!(command(example), Ok(expected));
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(
            command("<storlink><type>XX</type><shared>maybe</shared></storlink>").unwrap_err(),
            "name: is required; link: is required; type: must be one of LO, FC, ISC, NFS, CEP; level: is required; shared: must be one of True, False"
        );
    }

    #[test]
    fn types_levels_and_links_must_agree() {
        let with = |kind: &str, level: &str, link: &str| {
            command(&format!("<s><name>a</name><link>{link}</link><type>{kind}</type><level>{level}</level></s>"))
        };
        assert_eq!(with("NFS", "BL", "vg0").unwrap_err(), "level: must be FL for the type NFS");
        assert_eq!(with("CEP", "FL", "/x").unwrap_err(), "level: must be OB for the type CEP");
        for (kind, level, link) in
            [("NFS", "FL", "/x"), ("CEP", "OB", "rbd"), ("LO", "BL", "vg0"), ("ISC", "BL", "/dev/vg")]
        {
            assert!(with(kind, level, link).is_ok(), "{kind} {level}");
        }
        for link in ["data", "/data/../etc", "/data/.."] {
            assert_eq!(with("LO", "FL", link).unwrap_err(), "link: must be an absolute path without `..`");
        }
        assert_eq!(with("LO", "FL", "/a\tb").unwrap_err(), "link: must not have control characters");
    }

    #[test]
    fn the_document_is_the_manuals() {
        let storlink = Storlink {
            id: StorlinkId(3),
            uuid: "0f6a9c1e-0000-4000-8000-00000000000b".parse().unwrap(),
            pm: "0f6a9c1e-0000-4000-8000-00000000000a".parse().unwrap(),
            name: "store1".to_owned(),
            link: "/data1".to_owned(),
            kind: StorlinkType::Local,
            level: StorlinkLevel::File,
            usage: Usage { size: MiB(1000), free: MiB(900) },
            desc: "a & b".to_owned(),
            shared: false,
            marked: true,
        };
        let answers = StorlinksView { storlinks: std::slice::from_ref(&storlink), silent: HashSet::new() };
        let silent = StorlinksView { storlinks: std::slice::from_ref(&storlink), silent: [storlink.id].into() };
        assert_eq!(
            render(&silent).unwrap(),
            render(&answers)
                .unwrap()
                .replace("</free>", "</free> <!-- it does not answer: size and free are what it said last -->")
        );
        assert_eq!(
            render(&answers).unwrap(),
            r#"<storlinks>
  <storlink id="3">
    <pm>0f6a9c1e-0000-4000-8000-00000000000a</pm>
    <name>store1</name>
    <link>/data1</link>
    <type>LO</type>
    <level>FL</level>
    <size>1000</size>
    <free>900</free>
    <desc>a &amp; b</desc>
    <shared>False</shared>
  </storlink>
</storlinks>
"#
        );
        assert_eq!(
            render(&StorlinksView { storlinks: &[], silent: HashSet::new() }).unwrap(),
            "<storlinks>\n</storlinks>\n"
        );
    }
}
