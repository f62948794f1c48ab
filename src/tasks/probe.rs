//! The seam at which tests make tasks fail, or the process die, at every single point.

use crate::model::TaskId;

/// A moment in the life of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub task: TaskId,
    /// `begin`, `journal`, `effect`, `done`, `settle`, `settled`, `undo`, `undone`.
    pub name: &'static str,
}

impl Point {
    pub fn new(task: TaskId, name: &'static str) -> Self {
        Self { task, name }
    }
}

/// What happens at a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Go,
    Fail,
    /// The engine stops there for good, as by `kill -9`: no undo, no record.
    Die,
}

pub trait Probe: Send + Sync {
    fn at(&self, point: Point) -> Fate;
}

/// Every server's probe.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoFaults;

impl Probe for NoFaults {
    fn at(&self, _: Point) -> Fate {
        Fate::Go
    }
}
