//! Which VMs an account sees, by their names.

use std::fmt;
use std::str::FromStr;

use super::Name;

/// A VM is seen if any of these fits its name; so without any of them none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameRules {
    pub exact: Vec<String>,
    pub prefix: Vec<String>,
    pub suffix: Vec<String>,
}

impl NameRules {
    pub fn show(&self, name: &str) -> bool {
        self.exact.iter().any(|exact| name == exact)
            || self.prefix.iter().any(|prefix| name.starts_with(prefix.as_str()))
            || self.suffix.iter().any(|suffix| name.ends_with(suffix.as_str()))
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let exact = self.exact.iter().map(|text| ("exact", text));
        let prefix = self.prefix.iter().map(|text| ("prefix", text));
        exact.chain(prefix).chain(self.suffix.iter().map(|text| ("suffix", text)))
    }

    /// What is wrong with one of them: with that text no name could ever fit.
    pub fn problem(&self) -> Option<String> {
        let bad = |text: &str| text.chars().count() > Name::MAX_CHARS || text.chars().any(char::is_control);
        let (kind, _) = self.all().find(|(_, text)| bad(text))?;
        Some(format!("{kind}: must be at most {} characters, none of them a control character", Name::MAX_CHARS))
    }
}

/// The stored form, a rule on each line: `prefix web-`.
impl fmt::Display for NameRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (kind, text)) in self.all().enumerate() {
            write!(f, "{}{kind} {text}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl FromStr for NameRules {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        for line in s.split('\n').filter(|line| !line.is_empty()) {
            let (list, text) = match line.split_once(' ') {
                Some(("exact", text)) => (&mut rules.exact, text),
                Some(("prefix", text)) => (&mut rules.prefix, text),
                Some(("suffix", text)) => (&mut rules.suffix, text),
                _ => return Err("must be rules: exact, prefix or suffix, a space, a text".to_owned()),
            };
            list.push(text.to_owned());
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(exact: &[&str], prefix: &[&str], suffix: &[&str]) -> NameRules {
        let [exact, prefix, suffix] = [exact, prefix, suffix].map(|all| all.iter().map(|&t| t.to_owned()).collect());
        NameRules { exact, prefix, suffix }
    }

    #[test]
    fn any_rule_that_fits_shows_a_vm() {
        let mixed = rules(&["db"], &["web-", "김"], &[".example"]);
        for name in ["db", "web-", "web-1", "김서버", "a.example", ".example"] {
            assert!(mixed.show(name), "{name}");
        }
        for name in ["", "db2", "a db", "Web-1", "web", "my web-1", "a.example.org", "a.exampl"] {
            assert!(!mixed.show(name), "{name}");
        }
        for (rules, shows) in [
            (rules(&[], &[], &[]), false),
            (rules(&[""], &[], &[]), false),
            (rules(&[], &[""], &[]), true),
            (rules(&[], &[], &[""]), true),
        ] {
            assert_eq!(rules.show("web1"), shows, "{rules:?}");
        }
    }

    #[test]
    fn rules_are_written_and_read() {
        for all in
            [rules(&[], &[], &[]), rules(&["a b", ""], &["", " x "], &["$", "prefix y"]), rules(&[], &["w"], &[])]
        {
            assert_eq!(all.to_string().parse(), Ok(all.clone()), "{all}");
            assert_eq!(all.problem(), None);
        }
        for bad in ["web-", "infix a", "exact", "exact a\nb"] {
            assert!(bad.parse::<NameRules>().is_err(), "{bad:?}");
        }
        for bad in ["a\nprefix ", "\t", &"x".repeat(256)] {
            assert!(rules(&[], &[], &[bad]).problem().unwrap().starts_with("suffix: must be"), "{bad:?}");
        }
    }
}
