//! The bridges of Open vSwitch, from the log that is its database (`ovsdb(5)`): nothing in `/sys` tells them from any other
//! virtual interface.
//!
//! Each record is a header line and a line of JSON: tables, rows by uuid, changed columns; `null` is a removed row. With
//! `_is_diff` (Open vSwitch 2.15 and later) a set of a known row holds what was added or removed, else all of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

#[derive(Default)]
struct Tables {
    bridges: BTreeMap<String, Bridge>,
    /// From uuid to name.
    ports: HashMap<String, String>,
}

#[derive(Default)]
struct Bridge {
    name: String,
    ports: BTreeSet<String>,
}

/// From the name of each bridge to those of its ports, sorted. What cannot be read changes nothing: a record that is being
/// written is cut short.
pub(super) fn bridges(log: &str) -> HashMap<String, Vec<String>> {
    let mut tables = Tables::default();
    for line in log.lines().filter(|line| line.starts_with('{')) {
        if let Ok(record) = serde_json::from_str(line) {
            tables.take(&record);
        }
    }
    let Tables { bridges, ports } = tables;
    let listed = |bridge: Bridge| {
        let mut names: Vec<_> = bridge.ports.iter().filter_map(|id| ports.get(id).cloned()).collect();
        names.sort();
        (bridge.name, names)
    };
    bridges.into_values().map(listed).collect()
}

impl Tables {
    fn take(&mut self, record: &Value) {
        let is_diff = record.get("_is_diff").and_then(Value::as_bool).unwrap_or(false);
        for (id, row) in rows(record, "Port") {
            if row.is_null() {
                self.ports.remove(id);
            } else if let Some(name) = text(row, "name") {
                self.ports.insert(id.clone(), name);
            }
        }
        for (id, row) in rows(record, "Bridge") {
            if row.is_null() {
                self.bridges.remove(id);
                continue;
            }
            let bridge = self.bridges.entry(id.clone()).or_default();
            if let Some(name) = text(row, "name") {
                bridge.name = name;
            }
            if let Some(ports) = row.get("ports").map(uuids) {
                bridge.ports = if is_diff { &bridge.ports ^ &ports } else { ports };
            }
        }
    }
}

fn rows<'a>(record: &'a Value, table: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    record.get(table).and_then(Value::as_object).into_iter().flatten()
}

fn text(row: &Value, column: &str) -> Option<String> {
    row.get(column).and_then(Value::as_str).map(str::to_owned)
}

/// `["uuid","…"]`, or `["set",[["uuid","…"],…]]`.
fn uuids(value: &Value) -> BTreeSet<String> {
    let pair = |value: &Value| -> Option<(String, Value)> {
        Some((value.get(0)?.as_str()?.to_owned(), value.get(1)?.clone()))
    };
    match pair(value) {
        Some((word, Value::String(id))) if word == "uuid" => BTreeSet::from([id]),
        Some((word, Value::Array(items))) if word == "set" => items.iter().flat_map(uuids).collect(),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Written by `ovsdb-tool` 3.1.0: a bridge is made, three ports are added, one of them is removed. The schema is left out.
    pub(crate) const LOG: &str = include_str!("ovs/conf.db");

    fn is(log: &str, expected: &[(&str, &[&str])]) {
        let owned = |(name, ports): &(&str, &[&str])| {
            ((*name).to_owned(), ports.iter().map(|&port| port.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(bridges(log), expected.iter().map(owned).collect::<HashMap<_, _>>());
    }

    #[test]
    fn ports_are_added_and_removed_record_by_record() {
        is(LOG, &[("ovsbr0", &["eth0", "ovsbr0", "vnet0"])]);
        let lines: Vec<_> = LOG.lines().collect();
        is(&lines[..8].join("\n"), &[("ovsbr0", &["eth0", "eth9", "ovsbr0"])]);
        is(&LOG[..LOG.len() - 20], &[("ovsbr0", &["eth0", "eth9", "ovsbr0", "vnet0"])]);
    }

    #[test]
    fn older_logs_hold_whole_sets() {
        let log = r#"{"Port":{"p1":{"name":"eth0"},"p2":{"name":"eth1"}},"Bridge":{"b1":{"name":"a","ports":["uuid","p1"]},"b2":{"name":"b"}}}
{"Bridge":{"b1":{"ports":["set",[["uuid","p1"],["uuid","p2"]]]},"b2":null}}"#;
        is(log, &[("a", &["eth0", "eth1"])]);
        is(r#"{"Bridge":{"b1":{"name":"a","ports":["set",[]]}}}"#, &[("a", &[])]);
    }

    #[test]
    fn nonsense_is_no_bridge() {
        for log in ["", "{", "{}", "[]", r#"{"Bridge":7}"#, r#"{"Bridge":{"b":null}}"#] {
            is(log, &[]);
        }
    }
}
