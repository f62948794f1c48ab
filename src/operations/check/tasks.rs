//! What tasks have left: undone or unfinished work, and what they hold although they are over.

use std::collections::BTreeSet;

use crate::model::{Task, TaskId};
use crate::operations::peers;

use super::{Look, Remedy, words};

impl Look<'_> {
    pub(super) fn tasks(&mut self) {
        let mut all: Vec<Task> = self.rows.tasks.values().cloned().collect();
        all.sort_by_key(|task| (task.created_at, task.id));
        for task in all {
            let pm = self.rows.pms.iter().find(|pm| pm.id == task.pm);
            let host = pm.map_or_else(|| task.pm.to_string(), |pm| pm.name.clone());
            let up = pm.is_some_and(|pm| peers::is_up(self.core, pm));
            if task.state.is_over() {
                self.ended(&task);
            } else if !up {
                let said = format!(
                    "task {} ({}: {}) is {} on pm {host}, which is down{}",
                    task.id,
                    task.kind,
                    task.subject,
                    task.state,
                    self.keeps(task.id)
                );
                self.find(said, Err("its server undoes it when it starts"));
            }
        }
    }

    fn ended(&mut self, task: &Task) {
        let title = format!("task {} ({}: {})", task.id, task.kind, task.subject);
        let keeps = self.keeps(task.id);
        let entries = self.rows.journal.iter().find(|(id, _)| *id == task.id).map(|(_, entries)| entries.clone());
        if let Some(next) = entries.as_ref().and_then(|entries| entries.last()) {
            let more = match entries.as_ref().map_or(1, Vec::len) {
                1 => String::new(),
                count => format!(", the first of {count} steps"),
            };
            let away = next.compensation.volume().and_then(|(id, _)| {
                let place = self.places.get(&id).filter(|place| place.driver.is_none())?;
                Some(format!(" (storlink {} does not answer)", place.storlink.name))
            });
            let away = away.unwrap_or_default();
            let plain = words::plain(&next.compensation, &self.rows);
            let said = format!("{title} is over and still has to {plain}{more}{away}{keeps}");
            self.find(said, Err("its server tries it again and again; look at its log"));
        } else {
            self.find(format!("{title} is over{keeps}"), Ok(Remedy::Free(task.id)));
        }
    }

    /// `, and keeps vm:… locked`.
    fn keeps(&self, task: TaskId) -> String {
        let locks: BTreeSet<&str> =
            self.rows.locks.iter().filter(|lock| lock.task == task).map(|lock| lock.resource.as_str()).collect();
        let mut keeps = String::new();
        if !locks.is_empty() {
            keeps = format!(", and keeps {} locked", locks.into_iter().collect::<Vec<_>>().join(" and "));
        }
        if self.rows.reserved.contains(&task) {
            keeps.push_str(", and keeps room reserved");
        }
        keeps
    }
}
