//! The operating system.

use std::path::Path;

use super::shortened;
use super::text_of;
use crate::api::server::Os;

/// Longest text the schema takes.
const MAX_TEXT: usize = 128;

/// Text of the file that names the system; the second place is where it is when `/etc` has only a link that leads out of
/// `root`. Source: os-release(5).
pub fn release(root: &Path) -> String {
    let texts = ["etc/os-release", "usr/lib/os-release"].map(|path| text_of(&root.join(path)));
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// Reads os-release: `KEY=value` lines, where a value may stand in quotes and have escapes as in a shell. Source:
/// os-release(5). A rolling distribution has no version, so none is told.
pub fn parse(text: &str, kernel_version: Option<String>) -> Os {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix('='));
        shortened(&unquoted(line.unwrap_or_default().trim()), MAX_TEXT)
    };
    Os {
        family: "linux".into(),
        name: value("NAME"),
        version: value("VERSION_ID"),
        kernel_version: kernel_version.map(|version| shortened(&version, MAX_TEXT)),
        build_number: None,
    }
}

fn unquoted(text: &str) -> String {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(literal) = within('\'') {
        return literal.to_owned();
    }
    let mut plain = String::new();
    let mut characters = within('"').unwrap_or(text).chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::testdata::machine;
    use super::*;

    #[test]
    fn each_machine_names_its_system() {
        for (name, expected) in [
            ("two-sockets", ("Red Hat Enterprise Linux", "8.10")),
            ("arm", ("Amazon Linux", "2023")),
            ("no-gpu", ("Ubuntu", "22.04")),
            ("two-gpus", ("Arch Linux", "")),
            ("container", ("Alpine Linux", "3.22.1")),
        ] {
            let os = parse(&release(&machine(name)), Some("6.1.0".into()));
            assert_eq!((os.name.as_str(), os.version.as_str()), expected, "{name}");
            assert_eq!((os.family.as_str(), os.kernel_version.as_deref()), ("linux", Some("6.1.0")));
        }
        assert_eq!(parse("", None).name, "");
    }

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        for (line, expected) in [
            ("NAME=Fedora", "Fedora"),
            ("NAME='Fedora \\Linux'", "Fedora \\Linux"),
            ("NAME=\"A \\\"B\\\" \\$C\"", "A \"B\" $C"),
            ("  NAME=\"D\"  ", "D"),
            ("NAME=\"", "\""),
            ("VERSION_NAME=x", ""),
        ] {
            assert_eq!(parse(line, None).name, expected, "{line}");
        }
    }
}
