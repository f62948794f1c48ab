//! Power of a template's own domain, in which a system is installed on its disks. Not in the manual.

use serde::Deserialize;

use super::super::fields::{Field, Judge, Sent};
use super::super::vms::{MAX_CPU, MAX_MEMORY, networks};
use super::super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{MiB, TemplateId};
use crate::operations::template::{self, PoweroffTemplate, ShutdownTemplate, StartTemplate};
use crate::operations::vm::Known;

/// The body may be empty.
pub async fn start(mut call: Call) -> Result<Reply, Failure> {
    let (known, command) = call.body::<Body>().await?.read(call.template()?);
    match command {
        Ok(command) => call.perform(command, |done| Reply::done(done.outcome)).await,
        Err(bad) => call.refuse(bad, move |core| template::check_start(core, &known)).await,
    }
}

/// The answer comes when the guest is off.
pub async fn shutdown(call: Call) -> Result<Reply, Failure> {
    call.perform(ShutdownTemplate { template: call.template()? }, |done| Reply::done(done.outcome)).await
}

pub async fn poweroff(call: Call) -> Result<Reply, Failure> {
    call.perform(PoweroffTemplate { template: call.template()? }, |done| Reply::done(done.outcome)).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    /// Empty takes the disc out.
    iso: Sent,
    cpu_core: Field,
    memory: Field,
    network: Vec<Field>,
}

const DEFAULT_CPU: u32 = 1;
const DEFAULT_MEMORY: MiB = MiB(1024);

impl Body {
    /// The fields that can be read, and the whole command or every problem of the body.
    fn read(self, template: TemplateId) -> (Known, Result<StartTemplate>) {
        let mut judge = Judge::default();
        let iso = judge.sent_or_emptied("iso", self.iso);
        let cpu = judge.number("cpu_core", self.cpu_core, 1..=MAX_CPU).and_then(|cpu| u32::try_from(cpu).ok());
        let memory = judge.size("memory", self.memory, MAX_MEMORY);
        let networks = networks(&mut judge, self.network);
        let known = Known { cpu, memory, networks: networks.clone(), iso: iso.clone().flatten(), ..Known::default() };
        let (cpu, memory) = (cpu.unwrap_or(DEFAULT_CPU), memory.unwrap_or(DEFAULT_MEMORY));
        let command = judge.done(|| Some(StartTemplate { template, iso, cpu, memory, networks }));
        (known, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::{de, xml};

    fn read(document: &str) -> Result<StartTemplate, String> {
        let body: Body = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read(TemplateId(uuid::Uuid::nil())).1.map_err(|e| e.to_string())
    }

    #[test]
    fn all_of_it_may_be_left_out() {
        let plain = read("<template/>").unwrap();
        assert_eq!((plain.iso, plain.cpu, plain.memory, plain.networks), (None, 1, MiB(1024), Vec::new()));
        let full = read("<t><iso>2/a.iso</iso><cpu_core>2</cpu_core><memory>512</memory><network>0</network></t>");
        let full = full.unwrap();
        assert_eq!((full.iso, full.cpu, full.memory), (Some(Some("2/a.iso".parse().unwrap())), 2, MiB(512)));
        assert_eq!(full.networks, ["0"]);
        assert_eq!(read("<t><iso/></t>").unwrap().iso, Some(None));
        assert_eq!(
            read("<t><iso>a.iso</iso><cpu_core>0</cpu_core><memory>x</memory><network>a/b</network></t>").unwrap_err(),
            "iso: must be STORLINK/FILE.iso, as in 2/debian.iso; cpu_core: must be from 1 to 1024; \
             memory: must be a whole number; network: \"a/b\" is neither a number nor the name of a bridge"
        );
    }
}
