//! A page of metrics, with each line of it understood.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels.
pub(super) struct Page {
    pub(super) text: String,
    samples: BTreeMap<(String, BTreeSet<(String, String)>), f64>,
}

impl Page {
    /// Fails on a line that is not OpenMetrics, a family that comes twice, a sample twice or outside its family, a counter
    /// without `_total`, a histogram whose buckets fall.
    pub(super) fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("a page ends with # EOF");
        let mut samples = BTreeMap::new();
        let (mut families, mut family, mut kind) = (BTreeSet::new(), String::new(), String::new());
        let mut last_bucket: Option<(String, f64)> = None;
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').expect(line).0.to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, word) = of.split_once(' ').expect(line);
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&word), "{line}");
                word.clone_into(&mut kind);
            } else {
                let (name, labels, value) = sample(line);
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    _ => &[""],
                };
                assert!(suffixes.iter().any(|s| name == format!("{family}{s}")), "{line} is not in {family}");
                if name.ends_with("_bucket") {
                    let series: String = labels.iter().filter(|(k, _)| k != "le").map(|l| format!("{l:?}")).collect();
                    if let Some((of, below)) = &last_bucket {
                        assert!(*of != series || *below <= value, "{line} falls");
                    }
                    last_bucket = Some((series, value));
                } else {
                    last_bucket = None;
                }
                assert!(samples.insert((name, labels), value).is_none(), "{line} comes twice");
            }
        }
        Self { text: text.to_owned(), samples }
    }

    /// Of the sample with exactly these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

/// `name{label="value",…} number`; the values of these tests need no escapes.
fn sample(line: &str) -> (String, BTreeSet<(String, String)>, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.parse().expect(line);
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
        None => (series, ""),
    };
    assert!(
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
        "{line}"
    );
    let label = |text: &str| {
        let (key, value) = text.split_once("=\"").expect(line);
        (key.to_owned(), value.strip_suffix('"').expect(line).to_owned())
    };
    (name.to_owned(), labels.split(',').filter(|l| !l.is_empty()).map(label).collect(), value)
}
