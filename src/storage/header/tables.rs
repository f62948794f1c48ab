//! The tables of a qcow2 image: whether what they point to is within the file.

use std::io::{Read, Seek, SeekFrom};

use super::{Checked, HeaderError, MAX_L1_BYTES, QCOW2_FIELDS, Qcow2, be64, incompatible, read_at};

/// So many bytes of tables are read, in which an image says where 512 GiB of it are.
const MOST: u64 = 64 << 20;

const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Whether a table, or a cluster of data, begins where the file has ended. It may be open: a guest that writes makes the file
/// longer before its tables say so.
pub fn is_cut_short(image: &mut (impl Read + Seek)) -> Checked<bool> {
    let header = Qcow2::parse(&read_at(image, 0, QCOW2_FIELDS)?)?;
    let l1 = read_at(image, header.l1_offset, (u64::from(header.l1_entries) * 8).min(MAX_L1_BYTES))?;
    let cluster = 1_u64.checked_shl(header.cluster_bits).filter(|bytes| (512..=2 << 20).contains(bytes));
    let cluster = cluster.ok_or_else(|| HeaderError::Refused("has clusters of no known size".to_owned()))?;
    let entry = if header.incompatible & incompatible::EXTENDED_L2 == 0 { 8 } else { 16 };
    // A compressed cluster begins at any byte; the bits above its address tell how long it is.
    let compressed = (1_u64 << (62 - (header.cluster_bits - 8))) - 1;
    let (mut last, mut read) = (0, 0);
    for table in words(&l1, 8).map(|word| word & OFFSET).filter(|offset| *offset != 0) {
        last = last.max(table);
        if read >= MOST {
            continue;
        }
        read += cluster;
        for word in words(&read_at(image, table, cluster)?, entry) {
            let mask = if word & COMPRESSED == 0 { OFFSET } else { compressed };
            last = last.max(word & mask);
        }
    }
    // Asked last: what was written meanwhile counts.
    Ok(last > 0 && last >= image.seek(SeekFrom::End(0))?)
}

/// The first word of each entry.
fn words(table: &[u8], entry: usize) -> impl Iterator<Item = u64> {
    table.chunks(entry).filter_map(|entry| be64(entry, 0))
}
