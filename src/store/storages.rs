//! What hosts know of the storage under their mounts, and of their OCFS2 clusters. A host replaces all of its own at once.

use diesel::prelude::*;

use super::Conn;
use super::rows::{from_mib, mib, number, parse};
use super::schema::{ocfs2, storages};
use crate::error::Result;
use crate::model::{Ocfs2Peer, PmId, Storage, StorageCategory, Usage};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = storages, treat_none_as_default_value = false)]
struct StorageRow {
    pm: String,
    category: String,
    uuid: Option<String>,
    size: Option<i64>,
    free: Option<i64>,
    mount_point: Option<String>,
    target_ip: Option<String>,
    target: Option<String>,
}

impl StorageRow {
    fn of(pm: PmId, storage: &Storage) -> Result<Self> {
        let (size, free) = storage.usage.map(|usage| (usage.size, usage.free)).unzip();
        Ok(Self {
            pm: pm.to_string(),
            category: storage.category.to_string(),
            uuid: storage.uuid.clone(),
            size: size.map(|size| from_mib("storages.size", size)).transpose()?,
            free: free.map(|free| from_mib("storages.free", free)).transpose()?,
            mount_point: storage.mount_point.clone(),
            target_ip: storage.target_ip.clone(),
            target: storage.target.clone(),
        })
    }

    fn model(self) -> Result<Storage> {
        let usage = self.size.zip(self.free).map(|(size, free)| {
            Ok::<_, crate::error::Error>(Usage { size: mib("storages.size", size)?, free: mib("storages.free", free)? })
        });
        Ok(Storage {
            category: parse("storages.category", &self.category)?,
            uuid: self.uuid,
            usage: usage.transpose()?,
            mount_point: self.mount_point,
            target_ip: self.target_ip,
            target: self.target,
        })
    }
}

/// In the order in which the host told them.
pub fn of_pm(c: &mut Conn, pm: PmId) -> Result<Vec<Storage>> {
    let rows = storages::table.filter(storages::pm.eq(pm.to_string())).order(storages::id);
    let rows = rows.select(StorageRow::as_select()).load::<StorageRow>(&mut c.0)?;
    rows.into_iter().map(StorageRow::model).collect()
}

/// Each peer once.
pub fn peers_of_pm(c: &mut Conn, pm: PmId) -> Result<Vec<Ocfs2Peer>> {
    let rows: Vec<(String, String, i32)> = ocfs2::table
        .filter(ocfs2::pm_uuid.eq(pm.to_string()))
        .select((ocfs2::peer_ip, ocfs2::peer_name, ocfs2::number))
        .order(ocfs2::id)
        .load(&mut c.0)?;
    let mut peers = Vec::new();
    for (ip, name, number_) in rows {
        let peer = Ocfs2Peer { ip, name, number: number("ocfs2.number", number_)? };
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    Ok(peers)
}

/// Each peer is recorded with each OCFS2 storage, or alone where none is mounted.
///
/// # Errors
/// `InUse` if the PM is not there.
pub fn replace(c: &mut Conn, pm: PmId, all: &[Storage], peers: &[Ocfs2Peer]) -> Result<()> {
    diesel::delete(ocfs2::table.filter(ocfs2::pm_uuid.eq(pm.to_string()))).execute(&mut c.0)?;
    diesel::delete(storages::table.filter(storages::pm.eq(pm.to_string()))).execute(&mut c.0)?;
    let mut shared = Vec::new();
    for storage in all {
        let row = StorageRow::of(pm, storage)?;
        let id: i32 = diesel::insert_into(storages::table).values(&row).returning(storages::id).get_result(&mut c.0)?;
        if storage.category == StorageCategory::Ocfs2 {
            shared.push(Some(id));
        }
    }
    if shared.is_empty() {
        shared.push(None);
    }
    for storage in shared {
        for peer in peers {
            let values = (
                ocfs2::storage.eq(storage),
                ocfs2::pm_uuid.eq(pm.to_string()),
                ocfs2::peer_ip.eq(&peer.ip),
                ocfs2::peer_name.eq(&peer.name),
                ocfs2::number.eq(number::<i32, _>("ocfs2.number", peer.number)?),
            );
            diesel::insert_into(ocfs2::table).values(values).execute(&mut c.0)?;
        }
    }
    Ok(())
}
