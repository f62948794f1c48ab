//! Changes of VMs: rows 25 and 26.

use serde::Deserialize;

use super::{MAX_CPU, MAX_MEMORY};
use crate::dialects::pengx::fields::{Field, Judge, Sent};
use crate::dialects::pengx::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::VmId;
use crate::operations::vm::{self, Changes, EditVm, UpdateVm};

/// Row 25.
pub async fn update(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let (known, changes) = call.body::<UpdateBody>().await?.read();
    match changes {
        Ok(changes) => call.perform(UpdateVm { vm, changes }, |_| Reply::NoContent).await,
        Err(bad) => call.refuse(bad, move |core| vm::check_update(core, vm, &known)).await,
    }
}

/// Row 26.
pub async fn edit(mut call: Call) -> Result<Reply, Failure> {
    let vm = call.vm()?;
    let command = call.body::<EditBody>().await?.read(vm)?;
    call.perform(command, |_| Reply::NoContent).await
}

/// Row 25.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UpdateBody {
    cpu_core: Field,
    memory: Field,
    maxmem: Field,
    iso: Sent,
}

impl UpdateBody {
    /// The changes that can be read and that depend on none that cannot, and all of them or every problem of the body.
    fn read(self) -> (Changes, Result<Changes>) {
        let mut judge = Judge::default();
        let (memory_sent, maxmem_sent) = (self.memory != Field::Absent, self.maxmem != Field::Absent);
        let cpu = judge.number("cpu_core", self.cpu_core, 1..=MAX_CPU).and_then(|cpu| u32::try_from(cpu).ok());
        let memory = judge.size("memory", self.memory, MAX_MEMORY);
        let maxmem = judge.size("maxmem", self.maxmem, MAX_MEMORY);
        let iso = judge.sent_or_emptied("iso", self.iso);
        let changes = Changes { cpu, memory, maxmem, iso };
        // Each of the two is judged by the other.
        let both = memory.is_some() == memory_sent && maxmem.is_some() == maxmem_sent;
        let (memory, maxmem) = if both { (memory, maxmem) } else { (None, None) };
        let known = Changes { memory, maxmem, ..changes.clone() };
        (known, judge.done(|| Some(changes)))
    }
}

/// Row 26.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EditBody {
    name: Sent,
    desc: Sent,
}

impl EditBody {
    fn read(self, vm: VmId) -> Result<EditVm> {
        let mut judge = Judge::default();
        let name = judge.sent_name("name", self.name);
        let desc = judge.sent_desc("desc", self.desc);
        judge.done(|| Some(EditVm { vm, name, desc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::{de, xml};
    use crate::model::{MiB, Name};

    fn changes(document: &str) -> (Changes, Result<Changes, String>) {
        let body: UpdateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        let (known, changes) = body.read();
        (known, changes.map_err(|e| e.to_string()))
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let example = "<vm id='x'>\n  <cpu_core>2</cpu_core>\n  <memory>1024</memory>\n  <maxmem>2048</maxmem>\n</vm>";
        let expected = Changes { cpu: Some(2), memory: Some(MiB(1024)), maxmem: Some(MiB(2048)), iso: None };
        assert_eq!(changes(example), (expected.clone(), Ok(expected)));
    }

    #[test]
    fn an_empty_iso_takes_the_disc_out_and_an_absent_one_does_not() {
        for (body, iso) in [
            ("<vm/>", None),
            ("<vm><iso/></vm>", Some(None)),
            ("<vm><iso> </iso></vm>", Some(None)),
            ("<vm><iso>2/a.iso</iso></vm>", Some(Some("2/a.iso".parse().unwrap()))),
        ] {
            assert_eq!(changes(body).1.unwrap().iso, iso, "{body}");
        }
    }

    #[test]
    fn every_problem_is_told_and_memory_is_not_judged_by_half() {
        let (known, bad) =
            changes("<vm><cpu_core>0</cpu_core><memory>many</memory><maxmem>9</maxmem><iso>a.img</iso></vm>");
        assert_eq!(known, Changes::default());
        assert_eq!(
            bad.unwrap_err(),
            "cpu_core: must be from 1 to 1024; memory: must be a whole number; \
             iso: must be STORLINK/FILE.iso, as in 2/debian.iso"
        );
    }

    #[test]
    fn an_edit_tells_empty_from_absent() {
        let read = |document: &str| {
            let body: EditBody = de::from_node(xml::parse(document).unwrap()).unwrap();
            body.read(VmId(uuid::Uuid::nil()))
                .map(|e| (e.name.map(Name::into_string), e.desc))
                .map_err(|e| e.to_string())
        };
        assert_eq!(read("<vm/>"), Ok((None, None)));
        assert_eq!(read("<vm><desc/></vm>"), Ok((None, Some(String::new()))));
        assert_eq!(read("<vm><name>test</name></vm>"), Ok((Some("test".to_owned()), None)));
        assert_eq!(
            read(&format!("<vm><name/><desc>{}</desc></vm>", "x".repeat(4097))).unwrap_err(),
            "name: must not be empty; desc: must have at most 4096 characters"
        );
    }
}
