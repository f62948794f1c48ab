//! A template: disks that VMs are made from.

use chrono::NaiveDateTime;

use super::{Iso, PmId, Secret, Seen, TemplateId, VmId, words};

words! {
    Os {
        Arch = "ARCH",
        Centos = "CENTOS",
        Coreos = "COREOS",
        Debian = "DEBIAN",
        Fedora = "FEDORA",
        Gentoo = "GENTOO",
        Rhel = "RHEL",
        Ubuntu = "UBUNTU",
        Windows = "WINDOWS",
        Other = "OTHER",
    }
}

words! {
    OsArch {
        X86 = "X86",
        X64 = "X64",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub id: TemplateId,
    pub name: String,
    pub os: Os,
    pub os_arch: OsArch,
    pub desc: String,
    pub pm: PmId,
    pub seen: Seen,
    /// The disc in its drive.
    pub iso: Option<Iso>,
    /// Of its screen; `None` until it is started for the first time.
    pub vnc_password: Option<Secret>,
    pub created_at: NaiveDateTime,
    pub recent_booted_at: Option<NaiveDateTime>,
    pub updated_at: NaiveDateTime,
}

impl Template {
    /// The domain in which a template is installed has the template's uuid.
    pub fn domain(id: TemplateId) -> VmId {
        VmId(id.0)
    }
}
