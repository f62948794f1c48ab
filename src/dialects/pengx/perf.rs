//! The performance of this host.

use askama::Template;

use super::{Call, Failure, Reply};
use crate::operations::pm::{self, Performance};

/// Row 5.
pub async fn read(call: Call) -> Result<Reply, Failure> {
    let performance = pm::performance(&call.core).await?;
    Reply::ok(&PerformanceView { data: &performance })
}

/// Row 5: `pmpperf`. Who answers is up; the blank after `cpu_util` is the manual's.
#[derive(Template)]
#[template(path = "pengx/pmpperf.xml")]
pub struct PerformanceView<'a> {
    pub data: &'a Performance,
}
