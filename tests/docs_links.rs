//! Every link between our documents leads to a file, and to a heading where it names one.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

fn documents(root: &Path) -> Vec<PathBuf> {
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).chain([root.join("README.md")]).collect()
}

/// Targets of links, those to other sites and those in code apart.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The name a heading is linked by, as the usual sites make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let lines = text.split("```").step_by(2).flat_map(str::lines);
    lines.filter_map(|line| Some(anchor(line.strip_prefix('#')?.trim_start_matches('#')))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut broken) = (0, Vec::new());
    for document in documents(root) {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let is_good = heading.is_empty() && target.exists()
                || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|known| known == heading));
            if !is_good {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(count > 50, "{count} links found");
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_index_leads_to_every_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let index = root.join("docs/README.md");
    let text = fs::read_to_string(&index).unwrap();
    let linked: Vec<_> = links(&text).iter().filter_map(|link| link.split('#').next()).collect();
    let pages = documents(root).into_iter().filter(|page| page.starts_with(root.join("docs")) && *page != index);
    let missing: Vec<_> =
        pages.filter(|page| !linked.iter().any(|link| page.file_name().is_some_and(|name| name == *link))).collect();
    assert_eq!(missing, Vec::<PathBuf>::new());
}

#[test]
fn links_and_anchors_are_read_as_readers_see_them() {
    assert_eq!(links("[a](b.md#c) ```\n[x](y)\n``` [d](https://e.f) [g](#h)"), ["b.md#c", "#h"]);
    assert_eq!(anchors("# The `dcv.conf`, and more\n```\n# no\n```\n## Two"), ["the-dcvconf-and-more", "two"]);
}
