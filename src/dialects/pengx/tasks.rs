//! Tasks: what became of a call. Not in the manual; `Prefer: respond-async` leads here.

use askama::Template;

use super::settings::Settings;
use super::style::Style;
use super::{Call, Failure, Reply};
use crate::model::{Task, TaskState};
use crate::operations::task;

/// GET `/tasks/`.
pub async fn index(call: Call) -> Result<Reply, Failure> {
    let tasks = call.core.read(task::list).await?;
    Reply::ok(&TasksView::new(&tasks, call.settings()))
}

/// GET `/tasks/:task/`; with `?wait` the answer comes when the task is over, or when the wait is.
pub async fn retrieve(call: Call) -> Result<Reply, Failure> {
    let id = call.task()?;
    if let Some(wait) = call.wait()? {
        // Whether it ended or not, the record says.
        drop(tokio::time::timeout(wait, task::ended(&call.core, id)).await);
    }
    let task = call.core.read(move |core| task::find(core, id)).await?;
    Reply::ok(&TaskView::new(&task, call.settings()))
}

/// DELETE `/tasks/:task/` asks a task to stop.
pub async fn cancel(call: Call) -> Result<Reply, Failure> {
    let id = call.task()?;
    call.core.read(move |core| task::cancel(core, id)).await?;
    Ok(Reply::done(format!("task {id} was asked to stop; what it did is undone")))
}

/// The document of one task.
#[derive(Template)]
#[template(path = "pengx/task.xml")]
pub struct TaskView<'a> {
    task: &'a Task,
    words: Words<'a>,
    style: &'a Style,
}

/// GET `/tasks/`.
#[derive(Template)]
#[template(path = "pengx/tasks.xml")]
pub struct TasksView<'a> {
    tasks: &'a [Task],
    words: Words<'a>,
    style: &'a Style,
}

impl<'a> TaskView<'a> {
    pub fn new(task: &'a Task, settings: &'a Settings) -> Self {
        Self { task, words: Words(settings), style: &settings.style }
    }
}

impl<'a> TasksView<'a> {
    pub fn new(tasks: &'a [Task], settings: &'a Settings) -> Self {
        Self { tasks, words: Words(settings), style: &settings.style }
    }
}

/// The words of `<result>`.
struct Words<'a>(&'a Settings);

impl<'a> Words<'a> {
    /// Empty while the task goes on.
    fn result(&self, state: &TaskState) -> &'a str {
        match state {
            TaskState::Queued | TaskState::Running => "",
            TaskState::Success => &self.0.success,
            TaskState::Failure | TaskState::Interrupted => &self.0.failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::pengx::reply::render;
    use crate::dialects::pengx::vms::tests::time;
    use crate::model::TaskKind;

    fn task(state: TaskState) -> Task {
        let over = state.is_over();
        Task {
            id: "0f6a9c1e-0000-4000-8000-00000000000d".parse().unwrap(),
            kind: TaskKind::VmStart,
            subject: "vm <web1>".to_owned(),
            state,
            percent: 40,
            step: "starts the domain".to_owned(),
            error: over.then(|| "refused".to_owned()),
            message: if over { "Xen refused: no memory".to_owned() } else { String::new() },
            pm: "0f6a9c1e-0000-4000-8000-00000000000a".parse().unwrap(),
            process: "0f6a9c1e-0000-4000-8000-00000000000e".parse().unwrap(),
            created_at: time("2017-07-26 15:04:05"),
            started_at: Some(time("2017-07-26 15:04:06")),
            ended_at: over.then(|| time("2017-07-26 15:04:07")),
            account: None,
        }
    }

    #[test]
    fn documents() {
        let settings = Settings::default();
        assert_eq!(
            render(&TaskView::new(&task(TaskState::Failure), &settings)).unwrap(),
            r#"<task id="0f6a9c1e-0000-4000-8000-00000000000d">
  <kind>vm.start</kind>
  <subject>vm &lt;web1&gt;</subject>
  <state>failure</state>
  <percent>40</percent>
  <step>starts the domain</step>
  <result>failure</result>
  <message>Xen refused: no memory</message>
  <created>2017-07-26 15:04:05</created>
  <started>2017-07-26 15:04:06</started>
  <ended>2017-07-26 15:04:07</ended>
</task>
"#
        );
        assert_eq!(
            render(&TasksView::new(&[task(TaskState::Running)], &settings)).unwrap(),
            r#"<tasks>
  <task id="0f6a9c1e-0000-4000-8000-00000000000d">
    <kind>vm.start</kind>
    <subject>vm &lt;web1&gt;</subject>
    <state>running</state>
    <percent>40</percent>
    <step>starts the domain</step>
    <result></result>
    <message></message>
    <created>2017-07-26 15:04:05</created>
    <started>2017-07-26 15:04:06</started>
    <ended></ended>
  </task>
</tasks>
"#
        );
    }
}
