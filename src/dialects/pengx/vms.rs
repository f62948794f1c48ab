//! VMs.

mod change;
mod copy;

use askama::Template;
use bytes::Bytes;
use serde::Deserialize;

pub use change::{edit, update};
pub use copy::{copy, smigrate};

use super::fields::{Field, Judge};
use super::reply::render;
use super::style::{Style, or_empty};
use super::{Call, Failure, Reply};
use crate::error::Result;
use crate::model::{Iso, MiB, Nic, Os, OsArch, PowerState, Right, Vm};
use crate::operations::vm::{self, CreateVm, DeleteVm, Known};

/// Row 22.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let kept = &call.front.vms;
    let ticket = kept.ticket();
    let list = vm::list(&call.core).await?;
    let render = || {
        let vms = list.views(&call.core);
        let vms: Vec<_> = vms.iter().map(VmView::of).collect();
        render(&VmsView { vms: &vms, style: call.style() }).map(Bytes::from)
    };
    let body = match list.edition() {
        Some(edition) => kept.get(ticket, edition.clone(), render).await?,
        None => render()?,
    };
    Ok(Reply::xml(body))
}

/// Row 23.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    let vm = vm::find(&call.core, call.vm()?).await?;
    let vnc_port = vm.observed.vnc.as_ref().map(|vnc| vnc.port);
    let may_open_console = call.core.caller().may(Right::Operate);
    Reply::ok(&VmDetail { view: VmView::of(&vm), vnc_port, may_open_console, style: call.style() })
}

/// Row 20.
pub async fn create(mut call: Call) -> Result<Reply, Failure> {
    let (known, command) = call.body::<CreateBody>().await?.read();
    match command {
        Ok(command) => call.perform(command, |done| Reply::made(done.outcome)).await,
        Err(bad) => call.refuse(bad, move |core| vm::check(core, &known)).await,
    }
}

/// Row 21.
pub async fn delete(call: Call) -> Result<Reply, Failure> {
    call.perform(DeleteVm { vm: call.vm()? }, |_| Reply::NoContent).await
}

/// One VM with what is known of it elsewhere.
pub struct VmView<'a> {
    pub vm: &'a Vm,
    pub status: PowerState,
    /// Of all its disks.
    pub disk_size: MiB,
    pub nics: &'a [Nic],
    /// Of its template.
    pub os: Option<Os>,
    pub os_arch: Option<OsArch>,
}

impl<'a> VmView<'a> {
    fn of(vm: &'a vm::VmView) -> Self {
        let listing = &vm.listing;
        Self {
            vm: &listing.vm,
            status: vm.observed.state,
            disk_size: listing.disk_size,
            nics: &listing.nics,
            os: listing.os,
            os_arch: listing.os_arch,
        }
    }
}

/// Row 22: `vms`.
#[derive(Template)]
#[template(path = "pengx/vms.xml")]
pub struct VmsView<'a> {
    pub vms: &'a [VmView<'a>],
    pub style: &'a Style,
}

/// Row 23: `vm`.
#[derive(Template)]
#[template(path = "pengx/vm.xml")]
pub struct VmDetail<'a> {
    pub view: VmView<'a>,
    pub vnc_port: Option<u16>,
    /// Else the password is not shown.
    pub may_open_console: bool,
    pub style: &'a Style,
}

/// Row 20.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateBody {
    name: Field,
    template: Field,
    storlink: Field,
    cpu_core: Field,
    memory: Field,
    maxmem: Field,
    os_disk_size: Field,
    extra_disk_size: Field,
    disk_format: Field,
    network: Vec<Field>,
    iso: Field,
    desc: Field,
}

pub(super) const MAX_CPU: u64 = 1024;
/// 16 TiB.
pub(super) const MAX_MEMORY: MiB = MiB(16 << 20);
/// 1 PiB.
pub(super) const MAX_DISK: MiB = MiB(1 << 30);
const MAX_NICS: usize = 32;
/// The kernel's limit (`IFNAMSIZ` without the NUL).
const MAX_BRIDGE_CHARS: usize = 15;

impl CreateBody {
    /// The fields that can be read, and the whole command or every problem of the body.
    pub fn read(self) -> (Known, Result<CreateVm>) {
        let mut judge = Judge::default();
        let name = judge.needed("name", self.name);
        let from_scratch = self.template == Field::Absent;
        let template = judge.optional("template", self.template);
        let storlink = judge.needed("storlink", self.storlink);
        let cpu = judge.needed_number("cpu_core", self.cpu_core, 1..=MAX_CPU);
        let memory = judge.needed_number("memory", self.memory, 1..=MAX_MEMORY.0).map(MiB);
        let given_maxmem = self.maxmem != Field::Absent;
        let maxmem = judge.size("maxmem", self.maxmem, MAX_MEMORY);
        if let (Some(memory), Some(maxmem)) = (memory, maxmem)
            && memory > maxmem
        {
            judge.problem("memory", format!("must be at most maxmem, {maxmem}"));
        }
        let maxmem = if given_maxmem { maxmem } else { memory };
        if from_scratch && self.os_disk_size == Field::Absent {
            judge.problem("os_disk_size", "is required without a template");
        }
        let os_disk_size = judge.size("os_disk_size", self.os_disk_size, MAX_DISK);
        let extra_disk_size = judge.size("extra_disk_size", self.extra_disk_size, MAX_DISK);
        let format = judge.optional("disk_format", self.disk_format);
        let networks = networks(&mut judge, self.network);
        let iso: Option<Iso> = judge.optional("iso", self.iso);
        let desc = judge.desc("desc", self.desc);
        let cpu = cpu.and_then(|cpu| u32::try_from(cpu).ok());
        let known = Known {
            template,
            storlink,
            cpu,
            memory,
            maxmem,
            os_disk_size,
            extra_disk_size,
            format,
            networks: networks.clone(),
            iso: iso.clone(),
        };
        let command = judge.done(|| {
            Some(CreateVm {
                name: name?,
                template,
                storlink: storlink?,
                cpu: cpu?,
                memory: memory?,
                maxmem: maxmem?,
                os_disk_size,
                extra_disk_size,
                format,
                networks,
                iso,
                desc,
            })
        });
        (known, command)
    }
}

/// An empty item stands for no NIC.
pub(super) fn networks(judge: &mut Judge, items: Vec<Field>) -> Vec<String> {
    let mut networks = Vec::with_capacity(items.len().min(MAX_NICS));
    for item in items {
        networks.extend(network(judge, "network", item));
    }
    if networks.len() > MAX_NICS {
        judge.problem("network", format!("must have at most {MAX_NICS} items"));
    }
    networks
}

/// What a NIC is plugged into, by the client's word for it; absent too when it is a problem.
pub(super) fn network(judge: &mut Judge, name: &str, item: Field) -> Option<String> {
    let text = judge.text(name, item)?;
    if is_bridge(&text) {
        return Some(text);
    }
    judge.problem(name, format!("{text:?} is neither a number nor the name of a bridge"));
    None
}

fn is_bridge(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    // A name is never all dots, and never looks like an option.
    (1..=MAX_BRIDGE_CHARS).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && name.bytes().any(|b| b != b'.')
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::NaiveDateTime;

    use super::*;
    use crate::dialects::pengx::{de, xml};
    use crate::model::Seen;
    use crate::model::{Format, Mac, NicId, Secret, StorlinkId};

    pub(in super::super) fn time(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    fn command(document: &str) -> Result<CreateVm, String> {
        let body: CreateBody = de::from_node(xml::parse(document).unwrap()).unwrap();
        body.read().1.map_err(|e| e.to_string())
    }

    fn example(template: &str, memory: u32, rest: &str) -> String {
        format!(
            r#"<vm>
  <name>test_vm</name>
  <template>{template}</template>
  <storlink>2</storlink>
  <cpu_core>1</cpu_core>
  <memory>{memory}</memory>
  <maxmem>512</maxmem>
  <os_disk_size></os_disk_size>
  <extra_disk_size></extra_disk_size>
  <disk_format>qcow2</disk_format>
  <network>
    <list-item>0</list-item>
    <list-item>1</list-item>
  </network>
  <desc>VM for something</desc>{rest}
</vm>
"#
        )
    }

    #[test]
    fn the_manuals_example_is_taken() {
        let id = "bed05d84-7c44-4720-9588-57cbd8ecef8c";
        let expected = CreateVm {
            name: "test_vm".parse().unwrap(),
            template: Some(id.parse().unwrap()),
            storlink: StorlinkId(2),
            cpu: 1,
            memory: MiB(512),
            maxmem: MiB(512),
            os_disk_size: None,
            extra_disk_size: None,
            format: Some(Format::Qcow2),
            networks: vec!["0".to_owned(), "1".to_owned()],
            iso: None,
            desc: "VM for something".to_owned(),
        };
        assert_eq!(command(&example(id, 512, "")), Ok(expected));
    }

    #[test]
    fn defaults() {
        let least = "<vm><name>a</name><storlink>1</storlink><cpu_core>2</cpu_core><memory>64</memory><os_disk_size>10</os_disk_size></vm>";
        let vm = command(least).unwrap();
        assert_eq!((vm.maxmem, vm.os_disk_size, vm.format), (MiB(64), Some(MiB(10)), None));
        assert!(vm.networks.is_empty() && vm.desc.is_empty() && vm.template.is_none());
    }

    #[test]
    fn every_problem_is_told() {
        assert_eq!(
            command("<vm/>").unwrap_err(),
            "name: is required; storlink: is required; cpu_core: is required; memory: is required; \
             os_disk_size: is required without a template"
        );
        assert_eq!(
            command(&example("", 1024, "<cpu_core>0</cpu_core><network>a b</network><disk_format>vdi</disk_format>"))
                .unwrap_err(),
            "cpu_core: must be from 1 to 1024; memory: must be at most maxmem, 512; \
             os_disk_size: is required without a template; disk_format: must be one of qcow2, raw; \
             network: \"a b\" is neither a number nor the name of a bridge"
        );
        let bad_template = command(&example("nope", 512, "")).unwrap_err();
        assert_eq!(bad_template, "template: must be a uuid");
    }

    #[test]
    fn networks_are_numbers_and_bridges() {
        let with = |items: &str| {
            command(&example("bed05d84-7c44-4720-9588-57cbd8ecef8c", 512, &format!("<network>{items}</network>")))
        };
        assert_eq!(
            with("<list-item>xenbr0</list-item><list-item/><list-item>xenbr0</list-item>").unwrap().networks,
            ["xenbr0", "xenbr0"]
        );
        assert_eq!(with("7").unwrap().networks, ["7"]);
        assert!(with("").unwrap().networks.is_empty());
        for bad in ["-x", "..", "a/b", "sixteen_letters_", "브리지"] {
            assert!(with(bad).unwrap_err().starts_with("network: "), "{bad}");
        }
        assert!(with("<a><b/></a>").unwrap_err().contains("must be text"));
        assert!(with(&"<list-item>0</list-item>".repeat(33)).unwrap_err().contains("at most 32"));
    }

    fn vm() -> Vm {
        Vm {
            id: "0f6a9c1e-0000-4000-8000-000000000001".parse().unwrap(),
            template: None,
            pm: "0f6a9c1e-0000-4000-8000-00000000000a".parse().unwrap(),
            name: "web 'one'".to_owned(),
            cpu: 2,
            memory: MiB(512),
            maxmem: MiB(1024),
            desc: String::new(),
            pcivf: None,
            snapshot: None,
            iso: None,
            seen: Seen::default(),
            vnc_password: Secret::new("s&cret".to_owned()),
            created_at: time("2017-07-26 15:04:05"),
            recent_booted_at: None,
            updated_at: time("2017-07-26 15:04:05"),
        }
    }

    fn nic(vm: &Vm) -> Nic {
        Nic {
            id: NicId(1),
            uuid: "0f6a9c1e-0000-4000-8000-000000000002".parse().unwrap(),
            vm: vm.id,
            name: "eth0".to_owned(),
            mac: Mac([0, 0x16, 0x3e, 0xa, 0xb, 0xc]),
            switch: "xenbr0".to_owned(),
            ip: None,
        }
    }

    fn view<'a>(vm: &'a Vm, nics: &'a [Nic]) -> VmView<'a> {
        VmView {
            vm,
            status: PowerState::Running,
            disk_size: MiB(4096),
            nics,
            os: Some(Os::Debian),
            os_arch: Some(OsArch::X64),
        }
    }

    #[test]
    fn the_list_is_the_manuals() {
        let vm = vm();
        let nics = [nic(&vm)];
        let mut booted = vm.clone();
        booted.recent_booted_at = Some(time("2017-07-27 00:00:00"));
        let bare = VmView { os: None, os_arch: None, nics: &[], ..view(&booted, &[]) };
        let vms = [view(&vm, &nics), bare];
        assert_eq!(
            render(&VmsView { vms: &vms, style: &Style::default() }).unwrap(),
            r#"<vms>
  <vm id='0f6a9c1e-0000-4000-8000-000000000001'>
    <name>web &#39;one&#39;</name>
    <status>RUNNING</status>
    <cpu_core>2</cpu_core>
    <memory>512</memory>
    <maxmem>1024</maxmem>
    <disk_size>4096</disk_size><!-- unit: MB -->
    <pm id='0f6a9c1e-0000-4000-8000-00000000000a'></pm>
    <nics>
      <nic>
        <name>eth0</name>
        <mac>00:16:3e:0a:0b:0c</mac>
        <network>xenbr0</network>
      </nic>
    </nics>
    <os>DEBIAN</os>
    <os_arch>X64</os_arch>
    <create_date>2017-07-26 15:04:05</create_date>
    <last_boot_time>None</last_boot_time>
  </vm>
  <vm id='0f6a9c1e-0000-4000-8000-000000000001'>
    <name>web &#39;one&#39;</name>
    <status>RUNNING</status>
    <cpu_core>2</cpu_core>
    <memory>512</memory>
    <maxmem>1024</maxmem>
    <disk_size>4096</disk_size><!-- unit: MB -->
    <pm id='0f6a9c1e-0000-4000-8000-00000000000a'></pm>
    <nics>
    </nics>
    <os></os>
    <os_arch></os_arch>
    <create_date>2017-07-26 15:04:05</create_date>
    <last_boot_time>2017-07-27 00:00:00</last_boot_time>
  </vm>
</vms>
"#
        );
        assert_eq!(render(&VmsView { vms: &[], style: &Style::default() }).unwrap(), "<vms>\n</vms>\n");
    }

    #[test]
    fn the_single_read_is_the_manuals() {
        let vm = vm();
        let nics = [nic(&vm)];
        let style = Style { null_text: "null".to_owned(), ..Style::default() };
        let detail = VmDetail { view: view(&vm, &nics), vnc_port: Some(5901), may_open_console: true, style: &style };
        assert_eq!(
            render(&detail).unwrap(),
            r#"<vm id='0f6a9c1e-0000-4000-8000-000000000001'>
  <name>web &#39;one&#39;</name>
  <status>RUNNING</status>
  <cpu_core>2</cpu_core>
  <memory>512</memory>
  <maxmem>1024</maxmem>
  <disk_size>4096</disk_size><!-- unit: MB -->
  <pm id='0f6a9c1e-0000-4000-8000-00000000000a'></pm>
  <nics>
    <nic>
      <name>eth0</name>
      <mac>00:16:3e:0a:0b:0c</mac>
      <network>xenbr0</network>
    </nic>
  </nics>
  <os>DEBIAN</os>
  <os_type>X64</os_type>
  <create_date>2017-07-26 15:04:05</create_date>
  <last_boot_time>null</last_boot_time>
  <vnc_port>5901</vnc_port>
  <vnc_password>s&amp;cret</vnc_password>
</vm>
"#
        );
        let hidden = VmDetail { view: view(&vm, &[]), vnc_port: None, may_open_console: false, style: &style };
        let text = render(&hidden).unwrap();
        assert!(text.ends_with("  <vnc_port></vnc_port>\n  <vnc_password></vnc_password>\n</vm>\n"), "{text}");
    }
}
