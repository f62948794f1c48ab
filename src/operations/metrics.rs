//! What this host does and holds, as numbers for [`Registry`]. A scrape reads what is in memory: it never blocks.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::error::Result;
use crate::host;
use crate::model::{MiB, PowerState};

use super::health::{Now, Rows};
use super::{Core, space};

/// Has `registry` show the core with its tasks and its database. Once per registry.
pub fn register(core: &Core, registry: &mut Registry) -> Result<()> {
    core.store.register(registry);
    core.tasks()?.register(registry);
    let started = core.clock.now().and_utc().timestamp();
    registry.register_collector(Box::new(Gauges { core: core.clone(), started }));
    Ok(())
}

/// Read anew by each scrape.
struct Gauges {
    core: Core,
    /// In seconds of UNIX time.
    started: i64,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let now = Now::of(&self.core);
        self.process(&mut page)?;
        self.neighbours(&mut page, &now)?;
        self.tasks(&mut page)?;
        match &now.rows {
            Some(rows) => self.rows(&mut page, rows),
            None => Ok(()),
        }
    }
}

impl Gauges {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        page.gauge("pengx_build_info", "The program", [(version, 1_u32)])?;
        page.single("process_start_time_seconds", "UNIX time of the start", self.started)?;
        if let Some(usage) = host::process_usage() {
            page.single("process_resident_memory_bytes", "Memory in use", usage.resident_bytes)?;
            page.single("process_threads", "Threads", usage.threads)?;
            page.single("process_open_fds", "File descriptors in use", usage.open_fds)?;
        }
        Ok(())
    }

    fn neighbours(&self, page: &mut Page<'_>, now: &Now) -> fmt::Result {
        page.single("pengx_database_up", "Whether the database answers", u32::from(now.database_up))?;
        let help = "Since the database was looked at and answered";
        page.age("pengx_database_answer_age_seconds", help, now.database.age())?;
        let pools = self.core.store.connections();
        let by_state = pools.iter().flat_map(|(pool, c)| {
            [("in_use", c.in_use), ("idle", c.idle)]
                .map(|(state, n)| (vec![("pool", (*pool).to_owned()), ("state", state.to_owned())], n))
        });
        page.gauge("pengx_database_connections", "Connections to the database", by_state)?;
        let most = pools.iter().map(|(pool, c)| (vec![("pool", (*pool).to_owned())], c.max));
        page.gauge("pengx_database_connections_max", "Most connections to the database", most)?;
        page.single("pengx_hypervisor_up", "Whether the hypervisor answers", u32::from(now.hypervisor_up))?;
        let help = "Since the hypervisor listed its domains";
        page.age("pengx_hypervisor_answer_age_seconds", help, now.hypervisor.age())
    }

    fn tasks(&self, page: &mut Page<'_>) -> fmt::Result {
        let Ok(tasks) = self.core.tasks() else { return Ok(()) };
        let load = tasks.load();
        let by_state = [("running", load.running), ("queued", load.queued)];
        let rows = by_state.map(|(state, n)| (vec![("state", state.to_owned())], n));
        page.gauge("pengx_tasks", "Tasks that are not over", rows)
    }

    /// What the database said last, with what is known of it now.
    fn rows(&self, page: &mut Page<'_>, rows: &Rows) -> fmt::Result {
        let help = "Since the rows were read that VMs, storlinks and unclean tasks are counted by";
        page.age("pengx_rows_age_seconds", help, Some(rows.at.elapsed()))?;
        let help = "Tasks that are over and wait to be undone or finished";
        page.single("pengx_tasks_unclean", help, rows.unclean)?;
        let states: Vec<PowerState> = rows.vms.iter().map(|id| self.core.inventory.of(*id).state).collect();
        let by_state = PowerState::ALL.iter().map(|state| {
            (vec![("state", state.word().to_owned())], states.iter().filter(|seen| *seen == state).count())
        });
        page.gauge("pengx_vms", "VMs of this host", by_state)?;
        self.storlinks(page, rows)
    }

    fn storlinks(&self, page: &mut Page<'_>, rows: &Rows) -> fmt::Result {
        let known: Vec<_> = rows
            .storlinks
            .iter()
            .map(|s| {
                let label = vec![("id", s.id.to_string()), ("name", s.name.clone())];
                (label, self.core.usages.said(s.id).unwrap_or(s.usage), self.core.usages.pulse(s.id))
            })
            .collect();
        let bytes = |size: MiB| size.0.saturating_mul(1 << 20);
        let size = known.iter().map(|(label, usage, _)| (label.clone(), bytes(usage.size)));
        page.gauge("pengx_storlink_size_bytes", "Size of a storlink, as it said last", size)?;
        let free = known.iter().map(|(label, usage, _)| (label.clone(), bytes(usage.free)));
        page.gauge("pengx_storlink_free_bytes", "Room on a storlink, as it said last", free)?;
        let reserved = rows.storlinks.iter().zip(&known).map(|(storlink, (label, ..))| {
            (label.clone(), bytes(rows.reserved.get(&storlink.id).copied().unwrap_or_default()))
        });
        page.gauge("pengx_storlink_reserved_bytes", "Room that tasks under way have reserved", reserved)?;
        let kept = rows.storlinks.iter().zip(&known).map(|(storlink, (label, usage, _))| {
            (label.clone(), bytes(space::low_water(&self.core, storlink, usage.size)))
        });
        page.gauge("pengx_storlink_low_water_bytes", "Room that no copy takes", kept)?;
        let up = known
            .iter()
            .map(|(label, _, pulse)| (label.clone(), u32::from(pulse.answered.is_some() && !pulse.failing)));
        page.gauge("pengx_storlink_up", "Whether a storlink answered when it was last asked", up)?;
        let age = known.iter().filter_map(|(label, _, pulse)| Some((label.clone(), pulse.age()?.as_secs_f64())));
        page.gauge("pengx_storlink_answer_age_seconds", "Since a storlink answered", age)
    }
}

/// Writes gauges, one family after the other.
struct Page<'a>(DescriptorEncoder<'a>);

type Labels = Vec<(&'static str, String)>;

impl Page<'_> {
    fn single(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Nothing before the first answer.
    fn age(&mut self, name: &str, help: &str, age: Option<Duration>) -> fmt::Result {
        age.map_or(Ok(()), |age| self.single(name, help, age.as_secs_f64()))
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}
