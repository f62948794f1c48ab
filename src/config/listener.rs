//! `[[listener]]`: what is served where.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::{PublicUrl, Section, Tls, listen_address};
use crate::error::Problems;
use crate::model::UserName;

#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Where clients find its root, if not here; `None`: as each says that it has reached us.
    pub public_url: Option<PublicUrl>,
    pub dialects: Vec<Placed>,
}

/// A dialect and where it is.
#[derive(Debug, Clone)]
pub struct Placed {
    /// `/vd`; empty at the root.
    pub prefix: String,
    pub dialect: Dialect,
}

#[derive(Debug, Clone)]
pub enum Dialect {
    Pengx,
    VirtDancer(VirtDancer),
    ProxmoxApi(ProxmoxApi),
    LibvirtJson(LibvirtJson),
}

/// Directories of web pages that the operator brings, and whether `/stats` is for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtDancer {
    pub public_stats: bool,
    /// The old web pages, at the root of the dialect.
    pub ui: Option<PathBuf>,
    /// The new ones, at `/ui/`.
    pub ui_new: Option<PathBuf>,
}

/// For a dialect that knows no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Everybody whom it lets in acts as this account.
    pub act_as: UserName,
    /// Who is let in; nobody else than this host if it is empty.
    pub allow: Vec<IpNet>,
    /// Pages of other sites may ask, too.
    pub cors: bool,
    /// Where it was set: `listener[0].dialects[1].`
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxmoxApi {
    pub open: Open,
    /// The shapes of upstream's later revisions.
    pub late: bool,
    pub mask_passwords: bool,
    /// Of a new machine, as pengx clients name them.
    pub networks: Vec<String>,
    /// A directory that has noVNC's `vnc.html`.
    pub novnc: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtJson {
    pub open: Open,
    pub allow_power: bool,
    /// Where the front end is; browsers are sent there after a start or a stop.
    pub redirect_base: Option<String>,
    /// Endpoints that answer this status instead: `/vm_stop` 404.
    pub disabled: Vec<(String, u16)>,
}

impl Dialect {
    /// As it is named in the configuration and in what is printed at the start.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pengx => "pengx",
            Self::VirtDancer(_) => "virtdancer",
            Self::ProxmoxApi(_) => "proxmox-api",
            Self::LibvirtJson(_) => "libvirt-json",
        }
    }

    /// Of a dialect that knows no login.
    pub fn open(&self) -> Option<&Open> {
        match self {
            Self::Pengx | Self::VirtDancer(_) => None,
            Self::ProxmoxApi(settings) => Some(&settings.open),
            Self::LibvirtJson(settings) => Some(&settings.open),
        }
    }
}

impl Open {
    /// Whether somebody from there is let in. An address that nobody knows is not.
    pub fn lets_in(&self, peer: Option<IpAddr>) -> bool {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return false };
        if self.allow.is_empty() { peer.is_loopback() } else { self.allow.iter().any(|net| net.contains(&peer)) }
    }

    fn read(section: &mut Section, bad: &mut Problems) -> Option<Self> {
        let act_as = section.parsed("act_as", bad);
        let allow = section.list("allow", bad).unwrap_or_default();
        let nets: Vec<_> = allow.iter().filter_map(|text| net(text)).collect();
        if nets.len() < allow.len() {
            bad.add(section.name("allow"), "must be a list of addresses and networks, as 192.0.2.7 and 10.0.0.0/8");
        }
        let cors = section.flag("cors", false, bad);
        if act_as.is_none() {
            bad.add(
                section.name("act_as"),
                "is required: this API knows no login, so name the account that it acts as",
            );
        }
        Some(Self { act_as: act_as?, allow: nets, cors, path: section.path.clone() })
    }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl Listener {
    /// One with the native API at its root.
    pub(super) fn native(address: SocketAddr, tls: Option<Tls>) -> Self {
        Self {
            address,
            tls,
            public_url: None,
            dialects: vec![Placed { prefix: String::new(), dialect: Dialect::Pengx }],
        }
    }

    pub(super) fn read(mut section: Section, bad: &mut Problems) -> Self {
        let address = section.text("address", bad);
        if address.is_none() {
            bad.add(section.name("address"), "is required, as 127.0.0.1:8000");
        }
        let address = listen_address(address, &section.name("address"), bad);
        let tls = Tls::read(section.section("tls", bad), bad);
        let public_url = section.parsed("public_url", bad);
        let entries = section.sections("dialects", bad);
        if entries.is_empty() {
            bad.add(section.name("dialects"), "is required, as [{ name = \"pengx\" }]");
        }
        let dialects = entries.into_iter().filter_map(|entry| Placed::read(entry, address, bad)).collect();
        section.end(bad);
        Self { address, tls, public_url, dialects }
    }
}

impl Placed {
    fn read(mut section: Section, address: SocketAddr, bad: &mut Problems) -> Option<Self> {
        let prefix = section.text("prefix", bad).unwrap_or_default();
        let prefix = prefix.trim_end_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.starts_with('/') {
            bad.add(section.name("prefix"), format!("{prefix:?} must begin with /"));
        }
        let name = section.text("name", bad).unwrap_or_default();
        let dialect = match name.as_str() {
            "pengx" => Some(Dialect::Pengx),
            "virtdancer" => Some(Dialect::VirtDancer(VirtDancer::read(&mut section, bad))),
            "proxmox-api" => ProxmoxApi::read(&mut section, bad).map(Dialect::ProxmoxApi),
            "libvirt-json" => LibvirtJson::read(&mut section, address, bad).map(Dialect::LibvirtJson),
            _ => {
                let all = "pengx, virtdancer, proxmox-api, libvirt-json";
                bad.add(section.name("name"), format!("{name:?} must be one of {all}"));
                return None;
            }
        };
        section.end(bad);
        Some(Self { prefix, dialect: dialect? })
    }
}

impl VirtDancer {
    fn read(section: &mut Section, bad: &mut Problems) -> Self {
        Self {
            public_stats: section.flag("public_stats", false, bad),
            ui: section.text("ui", bad).map(PathBuf::from),
            ui_new: section.text("ui_new", bad).map(PathBuf::from),
        }
    }
}

impl ProxmoxApi {
    fn read(section: &mut Section, bad: &mut Problems) -> Option<Self> {
        let open = Open::read(section, bad);
        let late = section.one_of("compat", &["seed", "late"], bad) == "late";
        let mask_passwords = section.flag("mask_passwords", false, bad);
        let networks = section.list("networks", bad).unwrap_or_else(|| vec!["0".to_owned()]);
        let novnc = section.text("novnc", bad).unwrap_or_else(|| "/usr/share/novnc".to_owned());
        Some(Self { open: open?, late, mask_passwords, networks, novnc: novnc.into() })
    }
}

impl LibvirtJson {
    fn read(section: &mut Section, address: SocketAddr, bad: &mut Problems) -> Option<Self> {
        let open = Open::read(section, bad);
        let allow_power = section.flag("allow_power", address.ip().is_loopback(), bad);
        let redirect_base = section.text("redirect_base", bad);
        let mut disabled = Vec::new();
        let endpoints = section.section("disabled", bad);
        for (endpoint, value) in endpoints.table {
            match value.as_integer().and_then(|status| u16::try_from(status).ok()).filter(|s| (400..600).contains(s)) {
                Some(status) => disabled.push((endpoint, status)),
                None => bad.add(format!("{}{endpoint}", endpoints.path), "must be an HTTP status from 400 to 599"),
            }
        }
        Some(Self { open: open?, allow_power, redirect_base, disabled })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Given};
    use super::*;

    fn load(text: &str) -> crate::error::Result<Vec<Listener>> {
        Config::from_table(text.parse().unwrap(), &Given::default()).map(|config| config.listeners)
    }

    #[test]
    fn listeners_have_dialects_in_their_order() {
        let all = load(
            "[[listener]]\naddress = '127.0.0.1:1'\ndialects = [{ name = 'pengx' }, { name = 'virtdancer', prefix = '/vd/', public_stats = true }]\n\
             [[listener]]\naddress = '[::1]:2'\npublic_url = 'https://panel.example/a/'\ntls = { certificate = '/c', key = '/k' }\n\
             dialects = [{ name = 'libvirt-json', act_as = 'ann', cors = true, disabled = { '/vm_stop' = 404 } }]\n\
             [[listener]]\naddress = '192.0.2.1:3'\n\
             dialects = [{ name = 'proxmox-api', act_as = 'ann', allow = ['10.0.0.0/8', '192.0.2.9'], compat = 'late' }]",
        )
        .unwrap();
        let names = |l: &Listener| l.dialects.iter().map(|d| (d.dialect.name(), d.prefix.clone())).collect::<Vec<_>>();
        assert_eq!(names(&all[0]), [("pengx", String::new()), ("virtdancer", "/vd".to_owned())]);
        assert!(all[1].tls.is_some() && all[0].public_url.is_none());
        assert_eq!(all[1].public_url.as_ref().unwrap().to_string(), "https://panel.example/a");
        let Dialect::LibvirtJson(json) = &all[1].dialects[0].dialect else { panic!() };
        assert!(json.allow_power && json.open.cors && json.open.lets_in(Some("127.0.0.1".parse().unwrap())));
        assert!(!json.open.lets_in(Some("10.1.2.3".parse().unwrap())) && !json.open.lets_in(None));
        assert_eq!(json.disabled, [("/vm_stop".to_owned(), 404)]);
        let Dialect::ProxmoxApi(px) = &all[2].dialects[0].dialect else { panic!() };
        assert!(px.late && px.open.lets_in(Some("::ffff:10.1.2.3".parse().unwrap())));
        assert!(!px.open.lets_in(Some("127.0.0.1".parse().unwrap())), "only whom the list names");
    }

    #[test]
    fn power_goes_to_who_is_on_this_host_unless_it_is_said_otherwise() {
        for (address, key, allowed) in [
            ("127.0.0.1:1", "", true),
            ("[::1]:1", "", true),
            ("0.0.0.0:1", "", false),
            ("192.0.2.1:1", "", false),
            ("192.0.2.1:1", ", allow_power = true", true),
            ("127.0.0.1:1", ", allow_power = false", false),
        ] {
            let text = format!(
                "[[listener]]\naddress = '{address}'\ndialects = [{{ name = 'libvirt-json', act_as = 'ann'{key} }}]"
            );
            let Dialect::LibvirtJson(json) = &load(&text).unwrap()[0].dialects[0].dialect else { panic!() };
            assert_eq!((json.allow_power, json.open.cors), (allowed, false), "{address}{key}");
        }
    }

    #[test]
    fn every_bad_setting_of_a_listener_is_named() {
        let said = load(
            "[[listener]]\naddress = 'x'\npublic_url = 'panel'\ndialects = []\n[[listener]]\ndialects = [{ name = 'xo' }, { name = 'libvirt-json', prefix = 'x', allow = ['nowhere'], disabled = { a = 200 } }, { name = 'proxmox-api', act_as = 'a', compat = 'no', typo = 1 }]",
        )
        .unwrap_err()
        .to_string();
        for name in [
            "listener[0].address: \"x\"",
            "listener[0].public_url: \"panel\": \"panel\" must be like https://",
            "listener[0].dialects: is required",
            "listener[1].address: is required",
            "listener[1].dialects[0].name: \"xo\" must be one of",
            "listener[1].dialects[1].prefix: \"x\" must begin with /",
            "listener[1].dialects[1].allow: must be a list of addresses",
            "listener[1].dialects[1].act_as: is required",
            "listener[1].dialects[1].disabled.a: must be an HTTP status",
            "listener[1].dialects[2].compat: \"no\" must be one of seed, late",
            "listener[1].dialects[2].typo: is no setting",
        ] {
            assert!(said.contains(name), "{name} is missing in: {said}");
        }
    }

    #[test]
    fn listen_is_short_for_one_listener() {
        let all = load("listen = '127.0.0.1:9'").unwrap();
        assert_eq!((all.len(), all[0].address.port(), all[0].dialects[0].dialect.name()), (1, 9, "pengx"));
        let said = load("listen = '127.0.0.1:9'\n[[listener]]\naddress = '[::1]:2'\ndialects = [{ name = 'pengx' }]");
        assert_eq!(said.unwrap_err().to_string(), "listen: is short for a [[listener]]; use one of the two");
        let given = Given { listen: Some("127.0.0.1:7".to_owned()), ..Given::default() };
        let text = "[[listener]]\naddress = '[::1]:2'\ndialects = [{ name = 'virtdancer' }]";
        let config = Config::from_table(text.parse().unwrap(), &given).unwrap();
        assert_eq!(config.listeners[0].address.port(), 7, "the command line wins");
        assert_eq!((config.listeners.len(), config.listeners[0].dialects[0].dialect.name()), (1, "pengx"));
    }
}
