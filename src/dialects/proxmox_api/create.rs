//! POST `/container`: a machine for a user, and what any client may wish of one.

use super::cluster;
use super::failure::{Failure, MISSING};
use super::fields::Fields;
use super::front::{Answer, Call};
use super::reply::Reply;
use super::templates::{self, Known};
use crate::error::{Error, ErrorKind};
use crate::model::{MiB, Name, Storlink, StorlinkId};
use crate::operations::tenant::{self, CreateForTenant};
use crate::operations::vm::CreateVm;
use crate::operations::{Core, storlink};

const OS_TYPES: [&str; 4] = ["ubuntu", "debian", "centos", "archlinux"];
/// More is no number of CPUs, but a weight.
const MOST_VCPUS: u32 = 64;
/// As Proxmox VE has it.
const DEFAULT_MEMORY: MiB = MiB(512);
/// In MiB.
const GIB: u64 = 1024;

/// The fields that could be read.
#[derive(Debug, Default)]
pub(super) struct Wish {
    cpu: Option<u32>,
    pub(super) memory: Option<MiB>,
    pub(super) swap: Option<MiB>,
    pub(super) disk: Option<MiB>,
    pub(super) hostname: Option<Name>,
}

impl Wish {
    /// Every bad field at once.
    pub(super) fn read(fields: &Fields) -> Result<Self, Failure> {
        let mut bad = Vec::new();
        let mut number = |key: &str, upstream: &'static str, least: u32| -> Option<u32> {
            let text = fields.given(key)?.trim();
            // As some clients write whole numbers.
            let whole = text.strip_suffix(".0").unwrap_or(text);
            let read = whole.parse().ok().filter(|number| *number >= least);
            if read.is_none() {
                bad.push((upstream, format!("must be a whole number, at least {least}")));
            }
            read
        };
        let mut wish = Self {
            cpu: number("cpu", "cpuunits", 1),
            memory: number("memory", "memory", 16).map(|memory| MiB(memory.into())),
            swap: number("swap", "swap", 0).map(|swap| MiB(swap.into())),
            disk: number("disk", "rootfs", 1).map(|disk| MiB(u64::from(disk).saturating_mul(GIB))),
            hostname: None,
        };
        if let Some(hostname) = fields.given("hostname").or(fields.given("name")) {
            match hostname.parse() {
                Ok(name) => wish.hostname = Some(name),
                Err(why) => bad.push(("hostname", why)),
            }
        }
        if fields.given("ostype").is_some_and(|os| !OS_TYPES.contains(&os)) {
            bad.push(("ostype", format!("must be one of {}", OS_TYPES.join(", "))));
        }
        if bad.is_empty() { Ok(wish) } else { Err(Failure::Fields(bad)) }
    }

    /// A weight says nothing to us.
    pub(super) fn vcpus(&self) -> Option<u32> {
        self.cpu.filter(|cpu| *cpu <= MOST_VCPUS)
    }
}

/// What the words of a client stand for.
struct Places {
    templates: Vec<Known>,
    storlinks: Vec<Storlink>,
}

impl Places {
    fn read(core: &Core) -> Result<Self, Error> {
        Ok(Self { templates: templates::known(core)?, storlinks: storlink::known(core)? })
    }

    fn template(&self, word: Option<&str>) -> Result<&Known, (&'static str, String)> {
        let word = word.ok_or_else(|| ("ostemplate", MISSING.to_owned()))?;
        let found = self.templates.iter().find(|known| known.is_called(word));
        found.ok_or_else(|| ("ostemplate", format!("there is no template {word}")))
    }

    fn storlink(&self, word: &str) -> Result<StorlinkId, (&'static str, String)> {
        let named = self.storlinks.iter().find(|known| known.name == word);
        let numbered = || self.storlinks.iter().find(|known| word.parse() == Ok(known.id));
        let found = named.or_else(numbered).map(|known| known.id);
        found.ok_or_else(|| ("storage", format!("storage '{word}' does not exist")))
    }
}

/// The answer comes when the machine is there, with its disks; it is started by then or right after.
pub(super) async fn create(call: Call<'_>) -> Answer {
    let username = call.fields.sent("username").ok_or(Failure::Said("Username must be provided"))?.to_owned();
    let name = username.clone();
    if call.core.read(move |core| tenant::find(core, &name)).await?.is_none() {
        return Err(Failure::Said("User not found"));
    }
    let places = call.core.read(Places::read).await?;
    let (template, read) = (places.template(call.fields.given("template")), Wish::read(&call.fields));
    let storage = call.fields.given("storage").map(|word| places.storlink(word)).transpose();
    let number = match (call.fields.given("vmid").or(call.fields.given("id")), wished_number(&call.fields)) {
        (Some(_), None) => Err(("vmid", "must be a whole number".to_owned())),
        (_, number) => Ok(number),
    };
    let (Ok(template), Ok(wish), Ok(storage), Ok(number)) = (&template, &read, &storage, &number) else {
        let fields = if let Err(Failure::Fields(fields)) = read { fields } else { Vec::new() };
        let others = [template.err(), storage.err(), number.err()];
        return Err(Failure::Fields(fields.into_iter().chain(others.into_iter().flatten()).collect()));
    };
    let memory = wish.memory.unwrap_or(DEFAULT_MEMORY);
    let called = wish.hostname.as_ref().map_or(" ", Name::as_str);
    let vm = CreateVm {
        // The operation gives it its own.
        name: unnamed()?,
        template: Some(template.id),
        storlink: storage.unwrap_or(template.storlink),
        cpu: wish.vcpus().unwrap_or(1),
        memory,
        maxmem: memory,
        os_disk_size: wish.disk,
        extra_disk_size: None,
        format: None,
        networks: call.settings.networks.clone(),
        iso: None,
        desc: format!("{called}-:%:-{username}"),
    };
    let operation = CreateForTenant {
        tenant: username,
        hostname: wish.hostname.clone(),
        number: *number,
        swap: wish.swap.unwrap_or(MiB(0)),
        vm,
    };
    let made = async { call.core.wait(call.core.submit(operation).await?).await };
    let made = made.await.map_err(told)?.output;
    Ok(Reply::value(&serde_json::json!({ "id": cluster::id(&call, made.number) })))
}

fn wished_number(fields: &Fields) -> Option<crate::model::VmNumber> {
    fields.number("vmid").or_else(|| fields.number("id"))
}

fn unnamed() -> Result<Name, Error> {
    "container".parse().map_err(|why: String| Error::internal(why))
}

/// What is gone since it was looked for.
fn told(why: Error) -> Failure {
    match why.kind() {
        ErrorKind::NotFound { what: "tenant", .. } => Failure::Said("User not found"),
        ErrorKind::NotFound { what: "template", .. } => Failure::Fields(vec![("ostemplate", why.to_string())]),
        ErrorKind::NotFound { what: "storlink", .. } => Failure::Fields(vec![("storage", why.to_string())]),
        ErrorKind::Exists { .. } => Failure::Fields(vec![("hostname", why.to_string())]),
        _ => why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_no_number_of_cpus() {
        let vcpus = |cpu| Wish { cpu, ..Wish::default() }.vcpus();
        assert_eq!([None, Some(1), Some(64), Some(65), Some(1024)].map(vcpus), [None, Some(1), Some(64), None, None]);
    }
}
