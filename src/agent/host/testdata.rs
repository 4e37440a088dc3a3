//! Files of several machines, as their kernels and programs write them.

use std::path::Path;
use std::path::PathBuf;

/// Root of a machine's files.
pub fn machine(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agent/host/testdata").join(name);
    assert!(folder.is_dir(), "there is no machine {name}");
    folder
}
