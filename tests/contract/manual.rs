//! The manual's own templates as the measure of what is answered: names, order, indentation, quotes, comments and line
//! breaks must be theirs, so that a golden file which was blessed wrongly does not pass.
//!
//! `manual/*.xml` hold them as printed (indentation that the print lost at its page breaks is there again). Where the
//! manual misprints, [`corrected`] says what it means.

use super::file;

/// `loop` repeats; of a `choice` there is one; `hole` is any text without mark-up.
#[derive(Debug)]
enum Part {
    Text(String),
    Hole(String),
    Loop(Vec<Part>),
    Choice(Vec<Vec<Part>>),
}

/// What stood in the holes of the template, in order.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(String, String)>);

impl Values {
    pub(super) fn all(&self, hole: &str) -> Vec<&str> {
        self.0.iter().filter(|(name, _)| name == hole).map(|(_, value)| value.as_str()).collect()
    }

    /// Every hole of this list, in any order, was met once and held this.
    #[track_caller]
    pub(super) fn are(&self, expected: &[(&str, &str)]) {
        for (hole, value) in expected {
            assert_eq!(self.all(hole), [*value], "{hole}");
        }
    }
}

/// The values of a document that is the template's; else what is wrong with it.
pub(super) fn measure(template: &str, document: &str) -> Result<Values, String> {
    let text = corrected(template);
    let (parts, rest) = parse(&text);
    assert_eq!(rest, "", "{template}: the loops do not nest");
    let mut values = Values::default();
    let rest = fit(&parts, document, &mut values)?;
    if rest.is_empty() { Ok(values) } else { Err(format!("the template ends before {rest:?}")) }
}

/// Misprints, each with what is meant.
fn corrected(template: &str) -> String {
    let mut text = file(&format!("contract/manual/{template}.xml"));
    let misprints: &[(&str, &str)] = match template {
        "vms" => &[
            // The two loops begin nowhere; only the inner one is closed.
            ("<vms>\n", "<vms>{% for vm in data %}\n"),
            ("  </vm>\n", "  </vm>{% endfor %}\n"),
            ("<nics>\n", "<nics>{% for net in vm.vmiface_set %}\n"),
            // Closed by another name.
            ("}}</os_type>", "}}</os_arch>"),
        ],
        "template_v2" => &[
            // Closes a loop that the single read does not have.
            ("</template>{% endfor %}", "</template>"),
            ("<vnc_password>{{ gvm.vnc_port }}", "<vnc_password>{{ gvm.vnc_password }}"),
        ],
        _ => &[],
    };
    for (printed, meant) in misprints {
        assert_eq!(text.matches(printed).count(), 1, "{template}: {printed}");
        text = text.replace(printed, meant);
    }
    text
}

/// Up to the end of the text, of the loop, or of the branch that it is in.
fn parse(mut text: &str) -> (Vec<Part>, &str) {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let at = text.find("{{").into_iter().chain(text.find("{%")).min().unwrap_or(text.len());
        if at > 0 {
            parts.push(Part::Text(text[..at].to_owned()));
            text = &text[at..];
        } else if let Some(hole) = text.strip_prefix("{{") {
            let (name, rest) = hole.split_once("}}").unwrap();
            parts.push(Part::Hole(name.split('|').next().unwrap().trim().to_owned()));
            text = rest;
        } else if let Some(rest) = text.strip_prefix("{% endfor %}") {
            return (parts, rest);
        } else if text.starts_with("{% elif ") || text.starts_with("{% endif ") {
            return (parts, text);
        } else if text.starts_with("{% if ") {
            let mut branches = Vec::new();
            while !text.starts_with("{% endif ") {
                let (branch, rest) = parse(text.split_once("%}").unwrap().1);
                branches.push(branch);
                text = rest;
            }
            parts.push(Part::Choice(branches));
            text = text.split_once("%}").unwrap().1;
        } else {
            let (tag, rest) = text.split_once("%}").unwrap();
            assert!(tag.starts_with("{% for "), "{tag}");
            let (body, rest) = parse(rest);
            parts.push(Part::Loop(body));
            text = rest;
        }
    }
    (parts, "")
}

fn fit<'a>(parts: &[Part], mut document: &'a str, values: &mut Values) -> Result<&'a str, String> {
    let mut hint = String::new();
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => {
                document = document
                    .strip_prefix(text.as_str())
                    .ok_or_else(|| format!("{hint}{text:?} is expected before {document:?}"))?;
            }
            Part::Hole(name) => {
                let end = document.find(['<', '>', '"', '\'']).unwrap_or(document.len());
                // A blank after the hole is the template's.
                let blank = matches!(parts.get(at + 1), Some(Part::Text(text)) if text.starts_with(' '));
                let end = if blank { document[..end].trim_end_matches(' ').len() } else { end };
                values.0.push((name.clone(), document[..end].to_owned()));
                document = &document[end..];
            }
            Part::Choice(branches) => {
                let known = values.0.len();
                let fits = branches.iter().find_map(|branch| {
                    values.0.truncate(known);
                    fit(branch, document, values).ok()
                });
                document = fits.ok_or_else(|| format!("{hint}no branch of {branches:?} fits {document:?}"))?;
            }
            Part::Loop(body) => loop {
                let known = values.0.len();
                match fit(body, document, values) {
                    Ok(rest) => document = rest,
                    Err(why) => {
                        values.0.truncate(known);
                        hint = format!("{why}; or, after the loop, ");
                        break;
                    }
                }
            },
        }
    }
    Ok(document)
}

#[test]
fn the_measure_tells_right_from_wrong() {
    let right = "<templates>\n  <template id=\"1\">\n    <name>a</name>\n    <size>4</size>\n    <os>X</os>\n    \
                 <os_arch>Y</os_arch>\n    <desc></desc>\n  </template>\n</templates>\n";
    let values = measure("templates_v1", right).unwrap();
    values.are(&[("gvm.uuid", "1"), ("gvm.name", "a"), ("gvm.size", "4"), ("gvm.desc", "")]);
    assert!(measure("templates_v1", "<templates>\n</templates>\n").unwrap().0.is_empty());
    let twice = right.replace("  </template>\n", &format!("  </template>{}", &right["<templates>".len()..]));
    assert!(measure("templates_v1", &twice).is_err());
    for (is, was) in [
        ("id='1'", "id=\"1\""),
        ("   <name>", "    <name>"),
        ("<name>a</name><size>4</size>", "<name>a</name>\n    <size>4</size>"),
        ("<desc/>", "<desc></desc>"),
        ("<size>4</size>\n    <name>a</name>", "<name>a</name>\n    <size>4</size>"),
        ("</templates>", "</templates>\n"),
        ("</templates>\n\n", "</templates>\n"),
        ("<x/></template>", "</template>"),
        ("<?xml version=\"1.0\"?>\n<templates>", "<templates>"),
    ] {
        let wrong = right.replacen(was, is, 1);
        assert_ne!(wrong, right);
        assert!(measure("templates_v1", &wrong).is_err(), "{wrong}");
    }

    let of = |owner: &str| {
        format!(
            "<disks>\n  <disk id=\"1\">\n    <name>1</name>\n    <order>0</order>\n    <size>4</size>{owner}\n    \
             <desc></desc>\n    <created>now</created>\n    <format>raw</format>\n    <type>FL</type>\n    \
             <storlink>1</storlink>\n  </disk>\n</disks>\n"
        )
    };
    let one = |owner: &str| format!("\n    <{owner} id=\"7\"></{owner}>");
    for owner in ["vm", "snapshot", "backup"] {
        measure("disks", &of(&one(owner))).unwrap().are(&[(&format!("d.{owner}"), "7"), ("d.size", "4")]);
    }
    for wrong in [String::new(), one("template"), one("vm") + &one("backup")] {
        assert!(measure("disks", &of(&wrong)).is_err(), "{wrong}");
    }
}
