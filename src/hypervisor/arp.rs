//! Whom this host has reached lately, as its kernel remembers: IPv4 addresses by MAC address.

use crate::model::{GuestAddress, Mac};

/// What the kernel sets when a neighbour has answered.
const COMPLETE: u32 = 2;

/// Of these neighbours; none where the kernel does not tell.
pub(super) fn addresses(macs: &[Mac]) -> Vec<GuestAddress> {
    std::fs::read_to_string("/proc/net/arp").map(|table| known(&table, macs)).unwrap_or_default()
}

/// `IP address, HW type, Flags, HW address, Mask, Device`, after a line that says so.
fn known(table: &str, macs: &[Mac]) -> Vec<GuestAddress> {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        let flags = u32::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()?;
        let mac = words.next()?.parse().ok().filter(|mac| macs.contains(mac))?;
        let interface = words.nth(1)?.to_owned();
        (flags & COMPLETE != 0).then_some(GuestAddress { interface, mac: Some(mac), ip, prefix: 0 })
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_answered_are_found_by_their_mac() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     192.168.1.7      0x1         0x2         52:54:00:0a:0b:0c     *        xenbr0\n\
                     192.168.1.8      0x1         0x0         52:54:00:0a:0b:0c     *        xenbr0\n\
                     10.0.0.7         0x1         0x6         52:54:00:0A:0B:0C     *        xenbr1\n\
                     192.168.1.9      0x1         0x2         52:54:00:00:00:01     *        xenbr0\n\
                     nonsense\n";
        let mac: Mac = "52:54:00:0a:0b:0c".parse().unwrap();
        let found = known(table, &[mac]);
        let said: Vec<_> = found.iter().map(|a| (a.ip.to_string(), a.interface.as_str(), a.mac, a.prefix)).collect();
        assert_eq!(
            said,
            [("192.168.1.7".to_owned(), "xenbr0", Some(mac), 0), ("10.0.0.7".to_owned(), "xenbr1", Some(mac), 0)]
        );
        assert_eq!(known(table, &[]), []);
        assert_eq!(known("", &[mac]), []);
    }
}
