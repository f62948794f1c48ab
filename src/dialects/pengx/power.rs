//! Power of VMs: start, shutdown, poweroff and their kin. None of them reads a body or writes a document of its own.

use super::{Call, Failure, Reply};
use crate::operations::vm::{PoweroffVm, RebootVm, ResetVm, ResumeVm, ShutdownVm, StartVm, SuspendVm};

/// Row 33.
pub async fn start(call: Call) -> Result<Reply, Failure> {
    call.perform(StartVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 32. The answer comes when the guest is off.
pub async fn shutdown(call: Call) -> Result<Reply, Failure> {
    call.perform(ShutdownVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 28.
pub async fn poweroff(call: Call) -> Result<Reply, Failure> {
    call.perform(PoweroffVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 29. The answer comes when the guest was asked.
pub async fn reboot(call: Call) -> Result<Reply, Failure> {
    call.perform(RebootVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 30.
pub async fn reset(call: Call) -> Result<Reply, Failure> {
    call.perform(ResetVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 31.
pub async fn resume(call: Call) -> Result<Reply, Failure> {
    call.perform(ResumeVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}

/// Row 35.
pub async fn suspend(call: Call) -> Result<Reply, Failure> {
    call.perform(SuspendVm { vm: call.vm()? }, |done| Reply::done(done.outcome)).await
}
