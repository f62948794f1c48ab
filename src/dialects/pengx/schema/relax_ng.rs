//! Shapes as a RELAX NG grammar in its XML syntax. RELAX NG rather than XSD, because a request's fields come in any order
//! among elements that nobody knows, which XSD 1.0 cannot say.

use std::collections::BTreeMap;

use super::{Answer, Content, Element, Field, Kind, Part, Request, Times};
use crate::dialects::pengx::Settings;
use crate::dialects::pengx::resources::RESOURCES;
use crate::escape::Xml;

/// The grammar of every answer and, under their names, of every request. A document is valid if it is an answer, or, with
/// the name of a request for `start`, if it is such a request. `None` for a name that there is not.
pub(super) fn grammar(settings: &Settings, start: Option<&str>) -> Option<String> {
    let endpoints = || RESOURCES.iter().flat_map(|r| r.endpoints.iter().map(move |e| (r.pattern, e)));
    let requests: BTreeMap<&str, &'static Request> =
        endpoints().filter_map(|(_, e)| e.takes).map(|r| (r.name, r)).collect();
    let mut answers: BTreeMap<&str, &Answer> = endpoints().map(|(_, e)| (e.gives.name, e.gives)).collect();
    for always in [&super::answers::ROOT, &super::answers::OPTIONS, &super::answers::TASK] {
        answers.insert(always.name, always);
    }
    answers.retain(|_, answer| answer.element.is_some());
    if start.is_some_and(|name| !requests.contains_key(name) && !answers.contains_key(name)) {
        return None;
    }
    let mut out = Writer { text: String::new(), depth: 0, settings };
    out.open(
        "grammar xmlns=\"http://relaxng.org/ns/structure/1.0\" \
         datatypeLibrary=\"http://www.w3.org/2001/XMLSchema-datatypes\"",
    );
    for (pattern, endpoint) in endpoints() {
        let takes = endpoint.takes.map_or("no body", |request| request.name);
        out.line(&format!("<!-- {} {pattern}: {takes}, answers {} -->", endpoint.method.word(), endpoint.gives.name));
    }
    out.open("start");
    match start {
        Some(name) => out.line(&format!("<ref name=\"{name}\"/>")),
        None => out.within("choice", |out| {
            for name in answers.keys() {
                out.line(&format!("<ref name=\"{name}\"/>"));
            }
        }),
    }
    out.close("start");
    for answer in answers.values() {
        if let Some(element) = &answer.element {
            out.tagged("define", &format!("name=\"{}\"", answer.name), |out| out.element(element));
        }
    }
    for request in requests.values() {
        out.tagged("define", &format!("name=\"{}\"", request.name), |out| {
            out.within("element", |out| {
                out.line("<anyName/>");
                out.fields(request.fields);
            });
        });
    }
    out.tagged("define", "name=\"anything\"", |out| {
        out.within("mixed", |out| {
            out.line("<zeroOrMore><attribute><anyName/></attribute></zeroOrMore>");
            out.line("<zeroOrMore><element><anyName/><ref name=\"anything\"/></element></zeroOrMore>");
        });
    });
    out.close("grammar");
    Some(out.text)
}

struct Writer<'a> {
    text: String,
    depth: usize,
    settings: &'a Settings,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.text.extend(std::iter::repeat_n("  ", self.depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn open(&mut self, tag: &str) {
        self.line(&format!("<{tag}>"));
        self.depth += 1;
    }

    fn close(&mut self, name: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.line(&format!("</{name}>"));
    }

    fn within(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.open(name);
        inner(self);
        self.close(name);
    }

    fn tagged(&mut self, name: &str, attributes: &str, inner: impl FnOnce(&mut Self)) {
        self.open(&format!("{name} {attributes}"));
        inner(self);
        self.close(name);
    }

    fn element(&mut self, element: &Element) {
        self.tagged("element", &format!("name=\"{}\"", element.name), |out| {
            for (name, kind) in element.attributes {
                out.tagged("attribute", &format!("name=\"{name}\""), |out| out.kind(kind));
            }
            match &element.content {
                Content::Text(kind) => out.kind(kind),
                Content::Parts([]) if element.attributes.is_empty() => out.line("<empty/>"),
                Content::Parts(parts) => parts.iter().for_each(|part| out.part(part)),
            }
        });
    }

    fn part(&mut self, part: &Part) {
        match part.times {
            Times::Once => self.element(&part.element),
            Times::Maybe => self.within("optional", |out| out.element(&part.element)),
            Times::Any => self.within("zeroOrMore", |out| out.element(&part.element)),
        }
    }

    /// The fields in any order among elements that nobody knows; attributes and stray text are ignored.
    fn fields(&mut self, fields: &'static [Field]) {
        self.within("mixed", |out| {
            out.line("<zeroOrMore><attribute><anyName/></attribute></zeroOrMore>");
            out.within("interleave", |out| {
                for field in fields {
                    out.within(if field.needed { "oneOrMore" } else { "zeroOrMore" }, |out| out.field(field));
                }
                out.within("zeroOrMore", |out| {
                    out.within("element", |out| {
                        out.within("anyName", |out| {
                            out.within("except", |out| {
                                fields.iter().for_each(|f| out.line(&format!("<name>{}</name>", f.name)));
                            });
                        });
                        out.line("<ref name=\"anything\"/>");
                    });
                });
            });
        });
    }

    fn field(&mut self, field: &'static Field) {
        self.tagged("element", &format!("name=\"{}\"", field.name), |out| match &field.kind {
            Kind::Nested(fields) => out.fields(fields),
            Kind::List => {
                out.line("<zeroOrMore><attribute><anyName/></attribute></zeroOrMore>");
                out.within("mixed", |out| {
                    out.line("<zeroOrMore><element><anyName/><text/></element></zeroOrMore>");
                });
            }
            kind => {
                out.line("<zeroOrMore><attribute><anyName/></attribute></zeroOrMore>");
                if field.needed {
                    out.kind(kind);
                } else {
                    out.kind(&Kind::OrEmpty(kind));
                }
            }
        });
    }

    fn kind(&mut self, kind: &Kind) {
        let pattern = |regex: &str| format!("<data type=\"token\"><param name=\"pattern\">{regex}</param></data>");
        match kind {
            Kind::Text => self.line("<text/>"),
            Kind::Line(most) => self.length(1, *most),
            Kind::Chars(most) => self.length(0, *most),
            Kind::Uuid => self.line(&pattern("[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")),
            Kind::Mac => self.line(&pattern("[0-9a-f]{2}(:[0-9a-f]{2}){5}")),
            Kind::Iso => self.line(&pattern("[0-9]+/[^/]+\\.[iI][sS][oO]")),
            Kind::Number => self.line("<data type=\"nonNegativeInteger\"/>"),
            Kind::Positive => self.line("<data type=\"positiveInteger\"/>"),
            Kind::Bounded(least, most) => self.tagged("data", "type=\"integer\"", |out| {
                out.line(&format!("<param name=\"minInclusive\">{least}</param>"));
                out.line(&format!("<param name=\"maxInclusive\">{most}</param>"));
            }),
            Kind::Decimal => self.line("<data type=\"decimal\"/>"),
            Kind::Boolean => self.line(&pattern("[Tt]rue|[Ff]alse|TRUE|FALSE|1|0|yes|no")),
            Kind::Words(words) => self.choice(&words()),
            Kind::Result => {
                let settings = self.settings;
                self.choice(&[&settings.success, &settings.failure]);
            }
            Kind::OrEmpty(kind) => self.or("", kind),
            Kind::OrNull(kind) => {
                let settings = self.settings;
                self.or(&settings.style.null_text, kind);
            }
            // Only fields have these.
            Kind::Nested(_) | Kind::List => self.line("<ref name=\"anything\"/>"),
        }
    }

    fn length(&mut self, least: usize, most: usize) {
        self.tagged("data", "type=\"token\"", |out| {
            out.line(&format!("<param name=\"minLength\">{least}</param>"));
            out.line(&format!("<param name=\"maxLength\">{most}</param>"));
        });
    }

    fn choice(&mut self, words: &[&str]) {
        self.within("choice", |out| words.iter().for_each(|word| out.value(word)));
    }

    fn or(&mut self, word: &str, kind: &Kind) {
        self.within("choice", |out| {
            out.value(word);
            out.kind(kind);
        });
    }

    fn value(&mut self, word: &str) {
        self.line(&format!("<value>{}</value>", Xml::text(word)));
    }
}
