//! The bodies that are read: any root element, fields in any order, others ignored, of a repeated one the last.

use super::{Field, Kind, Request, words};
use crate::model::{Format, Name, Os, OsArch, StorlinkLevel, StorlinkType};

use Kind::{Boolean, Bounded, Text, Uuid, Words};

const NAME: Kind = Kind::Line(Name::MAX_CHARS);
const DESC: Kind = Kind::Chars(crate::dialects::pengx::fields::MAX_DESC_CHARS);
const STORLINK: Kind = Bounded(0, i32::MAX.unsigned_abs());
const CPU: Kind = Bounded(1, 1024);
const SIZE: Kind = Kind::Positive;

const fn needed(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, needed: true }
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, needed: false }
}

/// As the manual's example has it, `IO` is read as `LO`.
const TYPES: Kind = Words(|| StorlinkType::ALL.iter().map(|w| w.word()).chain(["IO"]).collect());
const LEVELS: Kind = Words(words!(StorlinkLevel));
const FORMATS: Kind = Words(words!(Format));
const OS: Kind = Words(words!(Os));
const OS_ARCH: Kind = Words(words!(OsArch));

pub static STORLINK_CREATE: Request = Request {
    name: "storlink-create",
    fields: &[
        needed("name", NAME),
        needed("link", Text),
        needed("type", TYPES),
        needed("level", LEVELS),
        optional("desc", DESC),
        optional("shared", Boolean),
    ],
};

pub static STORLINK_UPDATE: Request = Request {
    name: "storlink-update",
    fields: &[
        optional("name", NAME),
        optional("link", Text),
        optional("type", TYPES),
        optional("level", LEVELS),
        optional("desc", DESC),
        optional("shared", Boolean),
    ],
};

pub static TEMPLATE_ADD: Request = Request {
    name: "template-add",
    fields: &[
        needed("name", NAME),
        needed("os", OS),
        needed("os_arch", OS_ARCH),
        optional("desc", DESC),
        needed("disk", Kind::Nested(&[needed("storlink", STORLINK), needed("uuid", Uuid), needed("format", FORMATS)])),
    ],
};

pub static TEMPLATE_NEW: Request = Request {
    name: "template-new",
    fields: &[
        needed("name", NAME),
        needed("os", OS),
        needed("os_arch", OS_ARCH),
        optional("desc", DESC),
        optional("iso", Kind::Iso),
        needed("disk", Kind::Nested(&[needed("storlink", STORLINK), needed("size", SIZE), needed("format", FORMATS)])),
    ],
};

pub static TEMPLATE_CREATE: Request = Request {
    name: "template-create",
    fields: &[needed("name", NAME), needed("storlink", STORLINK), optional("desc", DESC)],
};

pub static TEMPLATE_UPDATE: Request = Request {
    name: "template-update",
    fields: &[
        optional("name", NAME),
        optional("os", OS),
        optional("os_arch", OS_ARCH),
        optional("desc", DESC),
        optional("iso", Kind::Iso),
    ],
};

pub static TEMPLATE_START: Request = Request {
    name: "template-start",
    fields: &[
        optional("iso", Kind::Iso),
        optional("cpu_core", CPU),
        optional("memory", SIZE),
        optional("network", Kind::List),
    ],
};

pub static VM_CREATE: Request = Request {
    name: "vm-create",
    fields: &[
        needed("name", NAME),
        optional("template", Uuid),
        needed("storlink", STORLINK),
        needed("cpu_core", CPU),
        needed("memory", SIZE),
        optional("maxmem", SIZE),
        optional("os_disk_size", SIZE),
        optional("extra_disk_size", SIZE),
        optional("disk_format", FORMATS),
        optional("network", Kind::List),
        optional("iso", Kind::Iso),
        optional("desc", DESC),
    ],
};

pub static VM_COPY: Request =
    Request { name: "vm-copy", fields: &[needed("name", NAME), needed("storlink", STORLINK)] };

pub static VM_SMIGRATE: Request = Request { name: "vm-smigrate", fields: &[needed("storlink", STORLINK)] };

pub static VM_UPDATE: Request = Request {
    name: "vm-update",
    fields: &[
        optional("cpu_core", CPU),
        optional("memory", SIZE),
        optional("maxmem", SIZE),
        optional("iso", Kind::Iso),
    ],
};

pub static VM_EDIT: Request = Request { name: "vm-edit", fields: &[optional("name", NAME), optional("desc", DESC)] };

pub static SNAPSHOT_TAKE: Request = Request {
    name: "snapshot-take",
    fields: &[needed("name", NAME), needed("storlink", STORLINK), optional("desc", DESC)],
};

pub static DISK_CREATE: Request = Request {
    name: "disk-create",
    fields: &[needed("size", SIZE), needed("storlink", STORLINK), optional("desc", DESC), optional("format", FORMATS)],
};

pub static BACKUP_CREATE: Request = Request {
    name: "backup-create",
    fields: &[needed("backup_name", NAME), needed("storlink", STORLINK), optional("desc", DESC)],
};

pub static INTERFACE_CREATE: Request =
    Request { name: "interface-create", fields: &[needed("interface_name", NAME), optional("ipaddress", Text)] };

pub static INTERFACE_UPDATE: Request = Request { name: "interface-update", fields: &[needed("ipaddress", Text)] };
