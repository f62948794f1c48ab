//! The documents that are sent: every element is there, in this order.

use super::{Answer, Element, Kind, any, element, list, maybe, one, words};
use crate::model::{FileKind, Format, Os, OsArch, PowerState, StorlinkLevel, StorlinkType, TaskKind, TaskState};
use crate::operations::ledger::OwnerKind;

use Kind::{Boolean, Decimal, Number, OrEmpty, OrNull, Result, Text, Uuid, Words};

const STATES: Kind = Words(words!(PowerState));
const OS: Kind = Words(words!(Os));
const OS_ARCH: Kind = Words(words!(OsArch));

const ID: &[(&str, Kind)] = &[("id", Uuid)];
const NUMBER: &[(&str, Kind)] = &[("id", Number)];

/// 204.
pub static NO_CONTENT: Answer = Answer { name: "nothing", element: None };

/// 101: a WebSocket.
pub static SWITCHED: Answer = Answer { name: "another protocol", element: None };

/// Of what was done, and of every failure.
pub static ROOT: Answer = document("root", list("root", &[], &[one("result", Result), one("message", Text)]));

pub static PM: Answer = document("pm", PM_ELEMENT);
pub static PMS: Answer = document("pms", list("pms", &[], &[any(PM_ELEMENT)]));
const PM_ELEMENT: Element = list(
    "pm",
    ID,
    &[
        one("name", Text),
        one("status", Words(|| vec!["Up", "Down", "Maintenance"])),
        one("cpu_core", Number),
        one("memory", Number),
        element(list(
            "interfaces",
            &[],
            &[any(list(
                "interface",
                &[],
                &[one("name", Text), one("mac", OrEmpty(&Kind::Mac)), one("ip", OrEmpty(&Text))],
            ))],
        )),
    ],
);

pub static PMPERF: Answer = document(
    "pmpperf",
    list(
        "pmpperf",
        ID,
        &[
            one("status", Words(|| vec!["Up"])),
            one("vm_count", Number),
            one("smt", Number),
            one("total_cpu_cores", Number),
            one("used_cpu_cores", Number),
            one("cpu_util", Decimal),
            one("total_memory", Number),
            one("used_memory", Number),
            one("memory_util", Decimal),
            one("iface_rx_sum", Number),
            one("iface_tx_sum", Number),
        ],
    ),
);

pub static STORLINKS: Answer = document(
    "storlinks",
    list(
        "storlinks",
        &[],
        &[any(list(
            "storlink",
            NUMBER,
            &[
                one("pm", Uuid),
                maybe("pm_name", Text),
                one("name", Text),
                one("link", Text),
                one("type", Words(words!(StorlinkType))),
                one("level", Words(words!(StorlinkLevel))),
                one("size", Number),
                one("free", Number),
                one("desc", Text),
                one("shared", Boolean),
            ],
        ))],
    ),
);

pub static ISOS: Answer = document(
    "isos",
    list(
        "isos",
        &[],
        &[any(list("iso", &[("id", Text)], &[one("name", Text), one("size", Number), one("storlink", Number)]))],
    ),
);

const OWNERS: Kind = Words(words!(OwnerKind));

pub static VOLUMES: Answer = document(
    "volumes",
    list(
        "volumes",
        &[],
        &[
            any(list(
                "total",
                &[("kind", OWNERS)],
                &[one("count", Number), one("size", Number), one("allocated", Number)],
            )),
            one("unlisted", Number),
            any(list(
                "volume",
                &[("id", Text)],
                &[
                    one("name", Text),
                    one("type", Words(words!(FileKind))),
                    element(Element {
                        name: "owner",
                        attributes: &[("kind", OWNERS), ("id", Text)],
                        content: super::Content::Text(Text),
                    }),
                    one("size", Number),
                    one("allocated", Number),
                    one("changed", Text),
                    one("deletable", Text),
                ],
            )),
        ],
    ),
);

/// Below a v1 prefix it ends with `desc`.
pub static TEMPLATES: Answer = document("templates", list("templates", &[], &[any(TEMPLATE_LISTED)]));
const TEMPLATE_LISTED: Element = list(
    "template",
    ID,
    &[
        one("name", Text),
        one("size", Number),
        one("os", OS),
        one("os_arch", OS_ARCH),
        one("desc", Text),
        maybe("lock_status", Boolean),
        maybe("pm", Uuid),
        maybe("state", STATES),
        maybe("recent_booted_at", OrNull(&Text)),
    ],
);

/// Below a v1 prefix it ends with `desc`.
pub static TEMPLATE: Answer = document(
    "template",
    list(
        "template",
        ID,
        &[
            one("name", Text),
            one("size", Number),
            one("os", OS),
            one("os_arch", OS_ARCH),
            one("desc", Text),
            maybe("lock_status", Boolean),
            maybe("pm", Uuid),
            maybe("state", STATES),
            maybe("recent_booted_at", OrNull(&Text)),
            maybe("vnc_port", OrNull(&Number)),
            maybe("vnc_password", OrNull(&Text)),
        ],
    ),
);

/// Of a template that was made of a VM.
pub static TEMPLATE_MADE: Answer =
    document("template-made", list("template", ID, &[one("name", Text), one("size", Number), one("desc", Text)]));

/// Of a template, a VM, a snapshot or a backup.
pub static DISKS: Answer = document(
    "disks",
    list(
        "disks",
        &[],
        &[any(list(
            "disk",
            ID,
            &[
                one("name", Uuid),
                one("order", Number),
                one("size", Number),
                maybe_element(list("template", ID, &[])),
                maybe_element(list("vm", ID, &[])),
                maybe_element(list("snapshot", ID, &[])),
                maybe_element(list("backup", ID, &[])),
                one("desc", Text),
                one("created", Text),
                one("format", Words(words!(Format))),
                one("type", Text),
                one("storlink", Number),
            ],
        ))],
    ),
);

pub static DISK: Answer = document(
    "disk",
    list(
        "disk",
        ID,
        &[
            one("name", Uuid),
            one("size", Number),
            element(list("vm", ID, &[])),
            one("desc", Text),
            one("created", Text),
            one("format", Words(words!(Format))),
            one("type", Text),
            one("storlink", Number),
        ],
    ),
);

pub static SNAPSHOTS: Answer = document(
    "snapshots",
    list(
        "snapshots",
        &[],
        &[any(list("snapshot", ID, &[one("name", Text), one("date", Text), one("description", Text)]))],
    ),
);

pub static SNAPSHOT: Answer = document(
    "snapshot",
    list(
        "snapshot",
        ID,
        &[
            one("name", Text),
            one("type", Words(|| vec!["SAVED"])),
            one("parent", OrNull(&Uuid)),
            one("date", Text),
            one("desc", Text),
        ],
    ),
);

pub static VMBACKUPS: Answer = document(
    "vmbackups",
    list(
        "vmbackups",
        &[],
        &[any(list(
            "vmbackup",
            ID,
            &[one("name", Text), element(list("vm", ID, &[])), one("date", Text), one("size", Number)],
        ))],
    ),
);

pub static INTERFACES: Answer = document(
    "interfaces",
    list(
        "interfaces",
        &[],
        &[any(list(
            "interface",
            NUMBER,
            &[one("mac", OrEmpty(&Kind::Mac)), one("name", Text), one("ip", Text), element(list("vm", ID, &[]))],
        ))],
    ),
);

const NICS: Element = list(
    "nics",
    &[],
    &[any(list("nic", &[], &[one("name", Text), one("mac", OrEmpty(&Kind::Mac)), one("network", Text)]))],
);

pub static VMS: Answer = document(
    "vms",
    list(
        "vms",
        &[],
        &[any(list(
            "vm",
            ID,
            &[
                one("name", Text),
                one("status", STATES),
                one("cpu_core", Number),
                one("memory", Number),
                one("maxmem", Number),
                one("disk_size", Number),
                element(list("pm", ID, &[])),
                element(NICS),
                one("os", OrEmpty(&OS)),
                one("os_arch", OrEmpty(&OS_ARCH)),
                one("create_date", Text),
                one("last_boot_time", OrNull(&Text)),
            ],
        ))],
    ),
);

pub static VM: Answer = document(
    "vm",
    list(
        "vm",
        ID,
        &[
            one("name", Text),
            one("status", STATES),
            one("cpu_core", Number),
            one("memory", Number),
            one("maxmem", Number),
            one("disk_size", Number),
            element(list("pm", ID, &[])),
            element(NICS),
            one("os", OrEmpty(&OS)),
            one("os_type", OrEmpty(&OS_ARCH)),
            one("create_date", Text),
            one("last_boot_time", OrNull(&Text)),
            one("vnc_port", OrEmpty(&Number)),
            one("vnc_password", Text),
        ],
    ),
);

pub static CONSOLE: Answer =
    document("console", list("console", &[], &[one("ticket", Text), one("url", Text), one("expires", Text)]));

pub static TASK: Answer = document("task", TASK_ELEMENT);
pub static TASKS: Answer = document("tasks", list("tasks", &[], &[any(TASK_ELEMENT)]));
const TASK_ELEMENT: Element = list(
    "task",
    ID,
    &[
        one("kind", Words(words!(TaskKind))),
        one("subject", Text),
        one("state", Words(words!(TaskState))),
        one("percent", Number),
        one("step", Text),
        one("result", OrEmpty(&Result)),
        one("message", Text),
        one("created", Text),
        one("started", Text),
        one("ended", Text),
    ],
);

/// To OPTIONS, everywhere.
pub static OPTIONS: Answer = document(
    "options",
    list(
        "root",
        &[],
        &[
            one("name", Text),
            one("description", Text),
            element(list(
                "renders",
                &[],
                &[any(Element { name: "list-item", attributes: &[], content: super::Content::Text(Text) })],
            )),
            element(list(
                "parses",
                &[],
                &[any(Element { name: "list-item", attributes: &[], content: super::Content::Text(Text) })],
            )),
        ],
    ),
);

/// The grammar itself.
pub static GRAMMAR: Answer = Answer { name: "grammar", element: None };

const fn document(name: &'static str, element: Element) -> Answer {
    Answer { name, element: Some(element) }
}

const fn maybe_element(element: Element) -> super::Part {
    super::Part { element, times: super::Times::Maybe }
}
