//! Every command and manifest of the documentation is run or read by a test, here or in a test that its mark names, or says
//! why it is not.

mod blocks;
mod commands;
mod manifests;
mod markdown;

use std::path::Path;

use markdown::Page;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn pages_are_read_as_readers_see_them() {
    let text =
        "a `b\nc` d\n\n<!-- not run: host -->\n```sh\nx `y`\n```\n1. e\n   ```toml\n   f = 1\n\n   [g]\n   ```\n`h`\n";
    let page = Page::new("p.md", text);
    let code: Vec<_> = page.code().into_iter().map(|code| (code.place, code.text)).collect();
    assert_eq!(code, [("p.md:1".to_owned(), "b c".to_owned()), ("p.md:14".to_owned(), "h".to_owned())]);
    let block = |line: usize, mark: Option<&str>, kind: &str, text: &str| markdown::Block {
        place: format!("p.md:{line}"),
        mark: mark.map(str::to_owned),
        kind: kind.to_owned(),
        text: text.to_owned(),
    };
    let expected = [block(5, Some("not run: host"), "sh", "x `y`\n"), block(9, None, "toml", "f = 1\n\n[g]\n")];
    assert_eq!(page.blocks(), expected);
    assert!(Page::all(root()).len() > 35);
}
