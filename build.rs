//! Makes the list of PCI vendors and devices that is part of the program.
//!
//! As text it is a third of the size of the crate's tables, and unlike these it holds no pointers, which a static program has
//! to write anew at each start: memory that every agent would have for ever.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use pci_ids::Vendors;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut vendors: Vec<_> = Vendors::iter().collect();
    vendors.sort_by_key(|vendor| vendor.id());
    // Every vendor stands after an end of line, the first one too.
    let mut text = String::from("\n");
    for vendor in vendors {
        let _ = writeln!(text, "{:04x}  {}", vendor.id(), vendor.name());
        let mut devices: Vec<_> = vendor.devices().collect();
        devices.sort_by_key(|device| device.id());
        for device in devices {
            let _ = writeln!(text, "\t{:04x}  {}", device.id(), device.name());
        }
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(folder.join("pci-ids.txt"), text)
}
