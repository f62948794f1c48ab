//! Row 12: a template made of a VM.

use askama::Template as Document;
use serde::Deserialize;

use super::super::fields::{Field, Judge};
use super::super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::VmId;
use crate::operations::template::{CreateTemplate, MadeTemplate};

pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<Body>().await?.read(vm)?;
    call.perform_and_show(command, |done| Reply::created(&MadeView { made: &done.output })).await
}

/// `template`.
#[derive(Document)]
#[template(path = "pengx/template.xml")]
struct MadeView<'a> {
    made: &'a MadeTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    name: Field,
    storlink: Field,
    desc: Field,
}

impl Body {
    fn read(self, vm: VmId) -> Result<CreateTemplate> {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let storlink = judge.needed("storlink", self.storlink);
        let desc = judge.desc("desc", self.desc);
        judge.done(|| Some(CreateTemplate { vm, name: name?, storlink: storlink?, desc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{MiB, Os, OsArch, Seen, StorlinkId, Template};

    fn command(document: &str) -> Result<CreateTemplate, String> {
        let body: Body = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(VmId(uuid::Uuid::nil())).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example = "<template>\n  <name>t</name>\n  <storlink>2</storlink>\n  <desc>d</desc>\n</template>";
        let expected = CreateTemplate {
            vm: VmId(uuid::Uuid::nil()),
            name: "t".parse().unwrap(),
            storlink: StorlinkId(2),
            desc: "d".to_owned(),
        };
        assert_eq!(command(example), Ok(expected));
        assert_eq!(command("<t/>").unwrap_err(), "name: is required; storlink: is required");
    }

    #[test]
    fn the_answer_is_the_manuals() {
        let template = Template {
            id: "0f6a9c1e-0000-4000-8000-00000000000c".parse().unwrap(),
            name: "a & b".to_owned(),
            os: Os::Other,
            os_arch: OsArch::X64,
            desc: String::new(),
            pm: "0f6a9c1e-0000-4000-8000-00000000000a".parse().unwrap(),
            seen: Seen::default(),
            iso: None,
            vnc_password: None,
            created_at: time("2017-07-26 15:04:05"),
            recent_booted_at: None,
            updated_at: time("2017-07-26 15:04:05"),
        };
        let made = MadeTemplate { template, size: MiB(6) };
        assert_eq!(
            render(&MadeView { made: &made }).unwrap(),
            "<template id=\"0f6a9c1e-0000-4000-8000-00000000000c\">\n  <name>a &amp; b</name>\n  <size>6</size>\n  \
             <desc></desc>\n</template>\n"
        );
    }
}
