//! Devices of a host's PCI bus.

use std::fmt;
use std::str::FromStr;

/// Where a function of a device is: `0000:03:10.4`, as Linux writes it; the domain may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PciAddress {
    pub domain: u16,
    pub bus: u8,
    /// At most 31.
    pub slot: u8,
    /// At most 7.
    pub function: u8,
}

impl FromStr for PciAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let hex = |digits: &str, length: usize, most: u16| {
            let fits = digits.len() == length && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|number| fits && *number <= most)
        };
        let byte = |digits, length, most| hex(digits, length, most).and_then(|number| u8::try_from(number).ok());
        let read = || {
            let (place, function) = s.rsplit_once('.')?;
            let (place, slot) = place.rsplit_once(':')?;
            let (domain, bus) = place.split_once(':').unwrap_or(("0000", place));
            Some(Self {
                domain: hex(domain, 4, u16::MAX)?,
                bus: byte(bus, 2, 0xff)?,
                slot: byte(slot, 2, 31)?,
                function: byte(function, 1, 7)?,
            })
        };
        read().ok_or_else(|| "must be the address of a PCI function, as 0000:03:10.4".to_owned())
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.slot, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, written) in
            [("0000:03:10.4", "0000:03:10.4"), ("03:1f.7", "0000:03:1f.7"), ("10aF:ff:00.0", "10af:ff:00.0")]
        {
            assert_eq!(text.parse::<PciAddress>().map(|address| address.to_string()).as_deref(), Ok(written));
        }
        for no in [
            "",
            "03",
            "03:10",
            "03:20.0",
            "03:10.8",
            "3:10.0",
            "03:+1.0",
            "0:03:10.0",
            "0000:03:10.4 ",
            "x:03:10.4",
            "0:0000:03:10.4",
        ] {
            assert!(no.parse::<PciAddress>().is_err(), "{no}");
        }
    }
}
