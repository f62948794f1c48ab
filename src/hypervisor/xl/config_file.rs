//! A domain as the configuration file that `xl create` reads, and back. Pure.
//!
//! The file is all that is kept of a definition. What Xen need not know, the images below a disk and those that a job writes
//! to, stands in settings of ours, which `xl` does not look for.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::{DiskSpec, DomainSpec, Layer, MiB, NicSpec, Secret, VmId, VolumeSource};

use super::devices::{self, ParsedDisk};
use super::syntax::{self, Settings, Value};
use super::{Boot, Guest, Kind, unsupported};

/// RFB authenticates with DES, whose key has so many characters.
const MAX_VNC_PASSWORD: usize = 8;
/// Screens are reached through this host.
pub(super) const VNC_LISTEN: &str = "127.0.0.1";

const SEIZE: &str = ",seize=1";

/// A domain and what it is on Xen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigFile {
    /// Its title, its system, the password of its screen and the cache mode of its disks are not taken from here.
    pub(super) spec: DomainSpec,
    pub(super) guest: Guest,
    /// What block jobs write to, by the order of their disk.
    pub(super) written: Vec<(u32, Layer)>,
    /// The password of the screen; `None`: whoever reaches it may use it.
    pub(super) screen: Option<Secret>,
}

/// What Xen calls it.
pub(super) fn domain_name(id: VmId) -> String {
    format!("pengx-{id}")
}

impl ConfigFile {
    /// With the disc `blank` in a drive that has no other. `Invalid`, `Refused` or `Unsupported` for what `xl` cannot be told.
    pub(super) fn write(&self, blank: &Path) -> Result<String> {
        let (spec, kind) = (&self.spec, self.guest.kind());
        let text = |key: &str, text: &str| (key.to_owned(), Value::Text(text.to_owned()));
        let number = |key: &str, number: u64| (key.to_owned(), Value::Number(number));
        let list = |key: &str, texts: Vec<String>| (key.to_owned(), Value::List(texts));
        let mut settings = vec![
            text("name", &domain_name(spec.id)),
            text("uuid", &spec.id.to_string()),
            text("type", kind.word()),
            number("memory", spec.memory.0),
            number("maxmem", spec.max_memory.0),
            number("vcpus", spec.vcpus.into()),
            number("maxvcpus", spec.max_vcpus.into()),
            text("on_poweroff", "destroy"),
            text("on_reboot", "restart"),
            // Kept until it was seen that it crashed, and destroyed then.
            text("on_crash", "preserve"),
        ];
        let mut disks: Vec<String> = spec.disks.iter().map(|disk| devices::disk(kind, disk)).collect::<Result<_>>()?;
        disks.extend(devices::disc(kind, spec.disc.as_ref(), blank)?);
        settings.push(list("disk", disks));
        let nic = |(number, nic)| -> Result<String> {
            let words = devices::nic(nic)?.into_iter().chain(devices::adapter(kind, number));
            Ok(words.collect::<Vec<_>>().join(","))
        };
        settings.push(list("vif", spec.nics.iter().enumerate().map(nic).collect::<Result<_>>()?));
        if let Some(address) = spec.pci {
            if kind == Kind::Pvh {
                return Err(unsupported("hand a PCI device through to a PVH guest"));
            }
            // From the host's own driver, if that has it.
            settings.push(list("pci", vec![format!("{address}{SEIZE}")]));
        }
        let backing = spec.disks.iter().flat_map(|disk| disk.backing.iter().map(|layer| (disk.order, layer)));
        let backing = backing.map(|(order, layer)| devices::layer(order, layer)).collect::<Result<_>>()?;
        settings.push(list("pengx_backing", backing));
        let written = self.written.iter().map(|(order, layer)| devices::layer(*order, layer));
        settings.push(list("pengx_written", written.collect::<Result<_>>()?));
        match &self.guest {
            Guest::Hvm => {
                settings.extend([
                    text("boot", "cd"),
                    number("vnc", 1),
                    text("vnclisten", VNC_LISTEN),
                    number("vncunused", 1),
                ]);
                if let Some(secret) = &self.screen {
                    settings.push(text("vncpasswd", password(secret)?));
                }
                // Without it the pointer of a screen is never where the hand is.
                settings.extend([number("usb", 1), text("usbdevice", "tablet")]);
                let serial = match &spec.console {
                    Some(VolumeSource::File(file)) => format!("file:{}", devices::target(kind, file)?),
                    None => "pty".to_owned(),
                };
                settings.push(text("serial", &serial));
            }
            Guest::Pv(boot) | Guest::Pvh(boot) => {
                if let Some(VolumeSource::File(file)) = &spec.console {
                    settings.push(text("pengx_console", devices::path(file)?));
                }
                let mut words = format!("vnc=1,vnclisten={VNC_LISTEN},vncunused=1");
                if let Some(secret) = &self.screen {
                    words.push_str(&format!(",vncpasswd={}", password(secret)?));
                }
                settings.push(list("vfb", vec![words]));
                match boot {
                    Boot::Kernel { kernel, ramdisk, cmdline } => {
                        settings.push(text("kernel", devices::path(kernel)?));
                        if let Some(ramdisk) = ramdisk {
                            settings.push(text("ramdisk", devices::path(ramdisk)?));
                        }
                        settings.push(text("cmdline", cmdline));
                    }
                    Boot::Loader(program) => settings.push(text("bootloader", program)),
                }
            }
        }
        syntax::write(&settings)
    }

    /// What [`ConfigFile::write`] wrote. `None` for anything else.
    pub(super) fn parse(file: &str, blank: &Path) -> Option<Self> {
        let settings = Read(syntax::parse(file)?);
        let kind = Kind::from_word(settings.text("type")?)?;
        let mut spec = DomainSpec {
            id: settings.text("uuid")?.parse().ok()?,
            title: String::new(),
            os: None,
            vcpus: settings.number("vcpus")?.try_into().ok()?,
            max_vcpus: settings.number("maxvcpus")?.try_into().ok()?,
            memory: MiB(settings.number("memory")?),
            max_memory: MiB(settings.number("maxmem")?),
            disks: Vec::new(),
            pci: match settings.list("pci") {
                Some(devices) => Some(devices.first()?.strip_suffix(SEIZE)?.parse().ok()?),
                None => None,
            },
            nics: settings.list("vif")?.iter().map(|nic| devices::parse_nic(nic)).collect::<Option<Vec<NicSpec>>>()?,
            disc: None,
            console: None,
            vnc_password: Secret::new(String::new()),
        };
        for disk in settings.list("disk")? {
            match devices::parse_disk(kind, disk, blank)? {
                ParsedDisk::Disk(disk) => spec.disks.push(disk),
                ParsedDisk::Disc(disc) => spec.disc = disc,
            }
        }
        for layer in settings.list("pengx_backing")? {
            let (order, layer) = devices::parse_layer(layer)?;
            let disk: &mut DiskSpec = spec.disks.iter_mut().find(|disk| disk.order == order)?;
            disk.backing.push(layer);
        }
        let written = settings.list("pengx_written")?.iter().map(|layer| devices::parse_layer(layer));
        let written = written.collect::<Option<Vec<_>>>()?;
        let screen = match kind {
            Kind::Hvm => settings.text("vncpasswd"),
            Kind::Pv | Kind::Pvh => settings.list("vfb")?.first()?.split_once("vncpasswd=").map(|(_, word)| word),
        };
        let screen = screen.map(|word| Secret::new(word.to_owned()));
        let guest = match kind {
            Kind::Hvm => {
                let console = settings.text("serial")?.strip_prefix("file:");
                spec.console = console.map(|file| VolumeSource::File(PathBuf::from(file)));
                Guest::Hvm
            }
            Kind::Pv | Kind::Pvh => {
                spec.console = settings.text("pengx_console").map(|file| VolumeSource::File(PathBuf::from(file)));
                let boot = match settings.text("bootloader") {
                    Some(program) => Boot::Loader(program.to_owned()),
                    None => Boot::Kernel {
                        kernel: settings.text("kernel")?.into(),
                        ramdisk: settings.text("ramdisk").map(PathBuf::from),
                        cmdline: settings.text("cmdline")?.to_owned(),
                    },
                };
                if kind == Kind::Pv { Guest::Pv(boot) } else { Guest::Pvh(boot) }
            }
        };
        Some(Self { spec, guest, written, screen })
    }
}

/// No password would be a screen for everybody.
fn password(secret: &Secret) -> Result<&str> {
    let password = secret.reveal();
    let fits = (1..=MAX_VNC_PASSWORD).contains(&password.len());
    if fits && password.bytes().all(|b| b.is_ascii_graphic() && !b",=\"'\\".contains(&b)) {
        return Ok(password);
    }
    let why = format!(
        "must be 1 to {MAX_VNC_PASSWORD} ASCII characters without commas, equals signs, quotes and backslashes"
    );
    Err(Error::invalid("vnc_password", why))
}

struct Read(Settings);

impl Read {
    fn value(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn list(&self, key: &str) -> Option<&[String]> {
        match self.value(key)? {
            Value::List(texts) => Some(texts),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{CacheMode, Format, Mac, NicLink, PciAddress};

    fn any_path() -> impl Strategy<Value = PathBuf> {
        "/[a-z가-힣=:;'\"\\\\$.%{}\\[\\]-]{0,12}[a-z]".prop_map(PathBuf::from)
    }

    fn format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Raw), Just(Format::Qcow2)]
    }

    fn layer() -> impl Strategy<Value = Layer> {
        (any_path(), format()).prop_map(|(file, format)| Layer { source: VolumeSource::File(file), format })
    }

    fn any_disk() -> impl Strategy<Value = DiskSpec> {
        let backing = proptest::collection::vec(layer(), 0..3);
        (layer(), backing).prop_map(|(leaf, backing)| DiskSpec {
            order: 0,
            source: leaf.source,
            format: leaf.format,
            cache: CacheMode::Writeback,
            backing,
        })
    }

    fn guest() -> impl Strategy<Value = Guest> {
        let kernel = (any_path(), proptest::option::of(any_path()), "[^\\p{Cc}]{0,20}")
            .prop_map(|(kernel, ramdisk, cmdline)| Boot::Kernel { kernel, ramdisk, cmdline });
        let boot = prop_oneof![kernel, Just(Boot::Loader("pygrub".to_owned()))];
        prop_oneof![Just(Guest::Hvm), boot.clone().prop_map(Guest::Pv), boot.prop_map(Guest::Pvh),]
    }

    prop_compose! {
        fn file()(
            guest in guest(),
            numbers in any::<(u128, u32, u32, u64, u64)>(),
            mut disks in proptest::collection::vec(any_disk(), 0..6),
            macs in proptest::collection::vec(any::<[u8; 6]>(), 0..3),
            disc in proptest::option::of(any_path()),
            console in proptest::option::of(any_path()),
            written in proptest::collection::vec((0..4_u32, layer()), 0..3),
            password in proptest::option::of("[A-Za-z0-9]{1,8}"),
            pci in proptest::option::of((any::<(u16, u8)>(), 0..32_u8, 0..8_u8)),
        ) -> ConfigFile {
            for (order, disk) in (0..).zip(&mut disks) {
                disk.order = order;
            }
            let nic = |mac| NicSpec { mac: Mac(mac), link: NicLink::Bridge("xenbr0".to_owned()) };
            let (id, vcpus, max_vcpus, memory, max_memory) = numbers;
            let pci = pci.filter(|_| guest.kind() != Kind::Pvh);
            let pci = pci.map(|((domain, bus), slot, function)| PciAddress { domain, bus, slot, function });
            ConfigFile {
                guest,
                written,
                screen: password.map(Secret::new),
                spec: DomainSpec {
                    id: VmId(uuid::Uuid::from_u128(id)),
                    title: String::new(),
                    os: None,
                    vcpus,
                    max_vcpus,
                    memory: MiB(memory),
                    max_memory: MiB(max_memory),
                    disks,
                    nics: macs.into_iter().map(nic).collect(),
                    pci,
                    disc: disc.map(VolumeSource::File),
                    console: console.map(VolumeSource::File),
                    vnc_password: Secret::new(String::new()),
                },
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(file in file()) {
            let written = file.write(Path::new("/none")).unwrap();
            prop_assert_eq!(ConfigFile::parse(&written, Path::new("/none")), Some(file), "{}", written);
        }
    }

    #[test]
    fn no_password_is_no_screen() {
        for (word, fine) in [("12345678", true), ("", false), ("123456789", false), ("a,b", false), ("é", false)] {
            assert_eq!(password(&Secret::new(word.to_owned())).is_ok(), fine, "{word}");
        }
    }

    #[test]
    fn a_pvh_guest_is_handed_no_device() {
        let file = crate::hypervisor::xl::tests::definition("5f1d3e0a-9f5c-4f43-8b6e-1d1f6a3f2a10");
        let spec = DomainSpec { pci: "03:10.4".parse().ok(), ..file.spec };
        let guest = Guest::Pvh(Boot::Loader("pygrub".to_owned()));
        let said = ConfigFile { spec, guest, ..file }.write(Path::new("/none")).unwrap_err().to_string();
        assert_eq!(said, "Xen cannot hand a PCI device through to a PVH guest");
    }
}
