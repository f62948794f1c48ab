//! `/manage`: a machine is switched on and off. Upstream's later revisions have it.

use serde_json::{Value, json};

use super::container::{self, Machine};
use super::failure::{Failure, refused};
use super::front::{Answer, Call};
use super::nodes::Nodes;
use super::reply::Reply;
use crate::error::Error;
use crate::model::VmId;
use crate::operations::vm::{PoweroffVm, StartVm};
use crate::operations::{Core, Operation};

/// POST `/manage/on`.
pub(super) async fn on(call: Call<'_>) -> Answer {
    switch(call, |vm| StartVm { vm }).await
}

/// POST `/manage/off`: the plug is pulled.
pub(super) async fn off(call: Call<'_>) -> Answer {
    switch(call, |vm| PoweroffVm { vm }).await
}

/// The node of the machine says which task did it, or why not.
async fn switch<O: Operation>(call: Call<'_>, power: impl FnOnce(VmId) -> O) -> Answer {
    let id = call.fields.given("id").ok_or(Failure::Said("You must specify machine ID"))?;
    let nodes = Nodes::of(&call.core).await?;
    let found = container::find(&call.core, call.fields.number("id")).await?;
    let said = match found.as_ref().filter(|machine| machine.pm() == nodes.here) {
        Some(machine) => match run(&call.core, power(machine.id())).await {
            Ok(task) => json!({ "data": task }),
            Err(why) => Value::String(refused(why)),
        },
        None => Value::Null,
    };
    Ok(Reply::value(&nodes.container(id, found.as_ref().map(Machine::pm), || said.clone())))
}

async fn run<O: Operation>(core: &Core, operation: O) -> Result<String, Error> {
    let handle = core.submit(operation).await?;
    let task = handle.id.to_string();
    core.wait(handle).await?;
    Ok(task)
}
