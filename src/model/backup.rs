//! A full, self-contained copy of a VM's disks, which outlives the VM.

use std::str::FromStr;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::{BackupId, Mac, MiB, StorlinkId, TemplateId, VmId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub id: BackupId,
    /// Perhaps deleted since.
    pub vm: VmId,
    pub name: String,
    pub storlink: StorlinkId,
    /// Of all its disks, as the guest saw them.
    pub size: MiB,
    pub desc: String,
    pub created_at: NaiveDateTime,
    pub config: BackupConfig,
    /// SHA-256 of the manifest that lies beside the images, in hexadecimal.
    pub manifest: String,
    /// When every block was last found as it was written.
    pub verified_at: Option<NaiveDateTime>,
    /// When a guest last booted from it.
    pub proven_at: Option<NaiveDateTime>,
}

/// What it takes to make the VM again, besides its disks. Stored as JSON, in the row and in the manifest, where people read
/// it too: fields are append-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupConfig {
    pub name: String,
    pub desc: String,
    /// Virtual CPUs.
    pub cpu: u32,
    #[serde(rename = "memory_mib")]
    pub memory: MiB,
    #[serde(rename = "maxmem_mib")]
    pub maxmem: MiB,
    pub template: Option<TemplateId>,
    pub nics: Vec<BackupNic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupNic {
    pub name: String,
    #[serde(with = "as_text")]
    pub mac: Mac,
    /// The bridge by the client's name for it.
    pub switch: String,
    pub ip: Option<String>,
}

/// A MAC address as people write it; the journal has it in bytes.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Mac;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mac, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// By what one sees that a guest which boots from a backup has come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofSign {
    /// Its guest agent answers.
    Agent,
    /// It writes this text to its serial console.
    Console(String),
}

/// `agent`, or `console:TEXT`.
impl FromStr for ProofSign {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "agent" => Ok(Self::Agent),
            Some(("console", text)) if !text.is_empty() => Ok(Self::Console(text.to_owned())),
            _ => Err("must be agent or console:TEXT".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_readable_and_what_it_lacks_is_empty() {
        let nic = BackupNic {
            name: "eth0".to_owned(),
            mac: Mac([0, 0x16, 0x3e, 0xa, 0xb, 0xc]),
            switch: "xenbr0".to_owned(),
            ip: None,
        };
        let config =
            BackupConfig { name: "웹 1".to_owned(), memory: MiB(512), nics: vec![nic], ..BackupConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            text,
            "{\"name\":\"웹 1\",\"desc\":\"\",\"cpu\":0,\"memory_mib\":512,\"maxmem_mib\":0,\"template\":null,\
             \"nics\":[{\"name\":\"eth0\",\"mac\":\"00:16:3e:0a:0b:0c\",\"switch\":\"xenbr0\",\"ip\":null}]}"
        );
        assert_eq!(serde_json::from_str::<BackupConfig>(&text).unwrap(), config);
        assert_eq!(serde_json::from_str::<BackupConfig>("{\"new\":1}").unwrap(), BackupConfig::default());
        let bad = text.replace("00:16:3e:0a:0b:0c", "00:16");
        assert!(serde_json::from_str::<BackupConfig>(&bad).unwrap_err().to_string().contains("a MAC address"));
    }

    #[test]
    fn signs_are_read() {
        assert_eq!("agent".parse(), Ok(ProofSign::Agent));
        assert_eq!("console:login: ".parse(), Ok(ProofSign::Console("login: ".to_owned())));
        for bad in ["", "agent:", "console", "console:", "screen:x"] {
            assert_eq!(bad.parse::<ProofSign>(), Err("must be agent or console:TEXT".to_owned()), "{bad}");
        }
    }
}
