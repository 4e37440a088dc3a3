//! The configuration of an installed Amazon DCV server, as far as it is looked at.

use std::collections::BTreeMap;

/// Values by section and key, as they stand in the file.
///
/// Source: "Modifying configuration parameters" in the Amazon DCV Administrator Guide: sections in brackets, `key=value`
/// lines, comments that start with `#` or `;`; text in quotes of either kind, lists of it in brackets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DcvConf(BTreeMap<(String, String), String>);

impl DcvConf {
    /// Reads the file. A line that is neither of these is passed over, as is a key before the first section.
    pub fn parse(text: &str) -> Self {
        let mut section = None;
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = Some(name.trim().to_owned());
            } else if let (Some(section), Some((key, value))) = (&section, line.split_once('=')) {
                values.insert((section.clone(), key.trim().to_owned()), value.trim().to_owned());
            }
        }
        Self(values)
    }

    /// A text, without its quotes; absent when it is empty or not set.
    pub fn text(&self, section: &str, key: &str) -> Option<&str> {
        let value = self.0.get(&(section.to_owned(), key.to_owned()))?;
        let text = unquoted(value);
        (!text.is_empty()).then_some(text)
    }

    /// Whether a switch is on; absent when it is not set or neither on nor off.
    pub fn switch(&self, section: &str, key: &str) -> Option<bool> {
        match self.text(section, key)? {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    /// The texts of a list.
    pub fn list(&self, section: &str, key: &str) -> Vec<&str> {
        let value = self.0.get(&(section.to_owned(), key.to_owned())).map_or("", String::as_str);
        let within = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
        within.split(',').map(|part| unquoted(part.trim())).filter(|part| !part.is_empty()).collect()
    }
}

fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_section_and_key() {
        let conf = DcvConf::parse(
            "stray=1\n# [security]\n; [security]\n[license]\n#license-file = \"\"\n\n[ session-management ]\ncreate-session = true\n\
             [security]\n administrators=[\"dcvsmagent\", 'ann']\nno-tls-strict=off\nca-file=''\n\
             auth-token-verifier = \"https://a:945/b?c=d\"\n[display/linux]\ngl-displays=[':0.0']\n[broken\nx\n",
        );
        assert_eq!(conf.text("security", "auth-token-verifier"), Some("https://a:945/b?c=d"));
        assert_eq!(conf.text("security", "ca-file"), None);
        assert_eq!(conf.text("license", "license-file"), None);
        assert_eq!(conf.switch("session-management", "create-session"), Some(true));
        assert_eq!(conf.switch("security", "no-tls-strict"), None);
        assert_eq!(conf.list("security", "administrators"), ["dcvsmagent", "ann"]);
        assert_eq!(conf.list("display/linux", "gl-displays"), [":0.0"]);
        assert_eq!(conf.list("security", "absent"), Vec::<&str>::new());
    }
}
