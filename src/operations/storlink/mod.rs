//! Storlinks: the pools that volumes are on.

mod check;
mod create;
mod delete;
mod query;
mod update;
mod usage;

pub(in crate::operations) use check::draft;
pub use check::{check, contradictions};
pub use create::CreateStorlink;
pub use delete::DeleteStorlink;
pub use query::{isos, known, list, list_with_pms, silent};
pub use update::UpdateStorlink;
pub use usage::Usages;
pub(super) use usage::keep_asking;

use crate::error::Result;
use crate::model::StorlinkId;
use crate::store::storlinks::{Use, UseKind};

use super::{Core, guard};

/// For subjects of tasks: `storlink store1`.
fn noun(core: &Core, id: StorlinkId) -> Result<String> {
    let storlink = core.store.read(|c| guard::storlink(c, &core.pm, id))?;
    Ok(format!("storlink {}", storlink.name))
}

/// Who needs a storlink, for sentences: `2 disks, the first of vm web1, and by a disc of vm web2`. `None` when nobody does.
fn users(uses: &[Use]) -> Option<String> {
    let words = [
        (UseKind::Disk, "disk", "disks"),
        (UseKind::Backup, "backup", "backups"),
        (UseKind::Disc, "disc", "discs"),
        (UseKind::Volume, "volume", "volumes"),
    ];
    let told: Vec<String> = words
        .iter()
        .filter_map(|(kind, one, many)| {
            let mut of_kind = uses.iter().filter(|using| using.what == *kind);
            let first = &of_kind.next()?.by;
            Some(match (*kind, 1 + of_kind.count()) {
                (UseKind::Backup, 1) => first.clone(),
                (UseKind::Backup, count) => format!("{count} {many}, the first {first}"),
                (_, 1) => format!("a {one} of {first}"),
                (_, count) => format!("{count} {many}, the first of {first}"),
            })
        })
        .collect();
    (!told.is_empty()).then(|| told.join(", and by "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_and_the_first_of_each_kind_is_named() {
        let using = |what, by: &str| Use { what, by: by.to_owned(), pm: None };
        assert_eq!(users(&[]), None);
        assert_eq!(users(&[using(UseKind::Disk, "vm web1")]).unwrap(), "a disk of vm web1");
        let all = [
            using(UseKind::Disk, "vm web1"),
            using(UseKind::Disk, "template debian"),
            using(UseKind::Backup, "backup monday"),
            using(UseKind::Disc, "vm web2"),
        ];
        assert_eq!(
            users(&all).unwrap(),
            "2 disks, the first of vm web1, and by backup monday, and by a disc of vm web2"
        );
    }
}
