//! Sizes. The manual says MB and means MiB.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

/// Whole mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct MiB(pub u64);

impl MiB {
    /// Rounded up, so that a size in MiB always holds the bytes.
    pub fn from_bytes_ceil(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20))
    }

    pub fn from_bytes_floor(bytes: u64) -> Self {
        Self(bytes >> 20)
    }

    /// Saturates at the largest u64.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }
}

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add for MiB {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for MiB {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Add::add)
    }
}
