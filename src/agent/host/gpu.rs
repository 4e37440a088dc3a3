//! Graphics cards, as the PCI bus has them.
//!
//! No driver and no vendor's library is asked: a static program cannot load one, and a card is there without its driver too.

use std::fs;
use std::path::Path;

use super::shortened;
use super::text_of;
use crate::api::server::Gpu;

/// Vendors and devices, in the form of `pci.ids` without comments and subsystems. Made by `build.rs`.
static PCI_IDS: &str = include_str!(concat!(env!("OUT_DIR"), "/pci-ids.txt"));

/// Where hosts have the list themselves, perhaps a newer one.
const LISTS_OF_HOSTS: [&str; 3] = ["usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids", "usr/share/pci.ids"];

/// Class of what shows pictures. Source: the class codes of the PCI Code and ID Assignment Specification.
const DISPLAY_CONTROLLER: u32 = 0x03;

/// Makers of what only shows a console: emulated screens of virtual machines and the screens of management controllers.
/// They draw nothing, so nobody would call them a GPU.
const CONSOLES_ONLY: [(u16, &str); 7] = [
    (0x1013, "Cirrus Logic, emulated"),
    (0x102b, "Matrox, in management controllers"),
    (0x1234, "Bochs, emulated"),
    (0x1414, "Hyper-V, emulated"),
    (0x1a03, "ASPEED, in management controllers"),
    (0x1b36, "QXL, emulated"),
    (0x1d0f, "Amazon, emulated"),
];

/// Longest texts the schema takes.
const MAX_VENDOR: usize = 128;
const MAX_MODEL: usize = 256;
/// Most cards the schema takes.
const MAX_CARDS: usize = 64;

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Number of its maker.
    pub vendor: u16,
    /// Number of its model.
    pub device: u16,
    /// Driver of the kernel that has it, if any.
    pub driver: Option<String>,
}

/// The cards of the machine whose files are in `root`, in the order of the bus.
pub fn cards(root: &Path) -> Vec<Card> {
    let entries = fs::read_dir(root.join("sys/bus/pci/devices")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders.iter().filter_map(|folder| card(folder)).take(MAX_CARDS).collect()
}

fn card(folder: &Path) -> Option<Card> {
    let number = |name: &str| {
        let text = text_of(&folder.join(name));
        u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    // A slice of a card, to be handed to a virtual machine.
    let is_slice = folder.join("physfn").exists();
    if number("class")? >> 16 != DISPLAY_CONTROLLER || is_slice {
        return None;
    }
    let vendor = u16::try_from(number("vendor")?).ok()?;
    let device = u16::try_from(number("device")?).ok()?;
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let shows_only_consoles = CONSOLES_ONLY.iter().any(|(maker, _)| *maker == vendor);
    (!shows_only_consoles).then_some(Card { vendor, device, driver })
}

/// The cards with their names, for `DcvServer.status`. One that is newer than our list is looked up in the host's own; one
/// that is not there either is told by its numbers.
pub fn read(root: &Path) -> Vec<Gpu> {
    cards(root).iter().map(|card| named(card, root)).collect()
}

fn named(card: &Card, root: &Path) -> Gpu {
    let Card { vendor, device, .. } = *card;
    let (mut vendor_name, mut model_name) = names(PCI_IDS, vendor, device);
    if model_name.is_none() {
        let lists = LISTS_OF_HOSTS.iter().map(|path| text_of(&root.join(path)));
        let newer = lists.map(|list| names(&list, vendor, device)).find(|(_, model)| model.is_some());
        (vendor_name, model_name) = newer.unwrap_or((vendor_name, None));
    }
    Gpu {
        vendor: shortened(&vendor_name.unwrap_or_else(|| format!("{vendor:#06x}")), MAX_VENDOR),
        model_name: shortened(&model_name.unwrap_or_else(|| format!("{device:#06x}")), MAX_MODEL),
    }
}

fn names(ids: &str, vendor: u16, device: u16) -> (Option<String>, Option<String>) {
    let (vendor_name, model_name) = lookup(ids, vendor, device);
    (vendor_name.map(str::to_owned), model_name.map(str::to_owned))
}

/// Names of a vendor and of its device. Source: the comments in pci.ids.
fn lookup(ids: &str, vendor: u16, device: u16) -> (Option<&str>, Option<&str>) {
    let Some((_, rest)) = ids.split_once(&format!("\n{vendor:04x}  ")) else { return (None, None) };
    let mut lines = rest.lines();
    let vendor_name = lines.next();
    let prefix = format!("\t{device:04x}  ");
    let mut devices = lines.take_while(|line| line.starts_with(['\t', '#']));
    (vendor_name, devices.find_map(|line| line.strip_prefix(&prefix)))
}

#[cfg(test)]
mod tests {
    use super::super::testdata::machine;
    use super::*;

    fn gpu(vendor: &str, model: &str) -> Gpu {
        Gpu { vendor: vendor.into(), model_name: model.into() }
    }

    #[test]
    fn each_machine_has_its_cards_and_no_screens_of_controllers() {
        for (name, expected) in [
            ("two-sockets", vec![]), // a Matrox in its management controller
            ("arm", vec![gpu("NVIDIA Corporation", "TU104GL [T4G]")]),
            ("no-gpu", vec![]), // Amazon's emulated screen
            (
                "two-gpus", // beside an ASPEED, and one card with a slice of its own
                vec![
                    gpu("NVIDIA Corporation", "GA104GL [RTX A4000]"),
                    gpu("Advanced Micro Devices, Inc. [AMD/ATI]", "0xfffe"),
                ],
            ),
            ("container", vec![]), // no bus to be seen
        ] {
            assert_eq!(read(&machine(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_card_is_there_with_and_without_its_driver() {
        let drivers: Vec<_> = cards(&machine("two-gpus")).into_iter().map(|card| card.driver).collect();
        assert_eq!(drivers, [Some("nvidia".to_owned()), None]);
    }

    #[test]
    fn names_are_found_in_their_own_vendors_list() {
        let ids = "#\n1000  One\n\t0001  First\n\t\t1001 0003  Card\n1001  Two\n\t0001  Other\n#\n\t0002  Second\nC 03  Display\n";
        assert_eq!(lookup(ids, 0x1001, 0x0001), (Some("Two"), Some("Other")));
        assert_eq!(lookup(ids, 0x1000, 0x0002), (Some("One"), None));
        assert_eq!(lookup(ids, 0x0001, 0x0001), (None, None), "a device is no vendor");
        assert_eq!(lookup(ids, 0x1000, 0x1001), (Some("One"), None), "nor is a subsystem one");
    }

    #[test]
    fn a_card_newer_than_our_list_is_named_by_the_hosts() {
        let root = tempfile::tempdir().unwrap();
        let card = |device| Card { vendor: 0x10de, device, driver: None };
        assert_eq!(named(&card(0x2236), root.path()), gpu("NVIDIA Corporation", "GA102GL [A10]"));
        assert_eq!(named(&card(0xfffe), root.path()), gpu("NVIDIA Corporation", "0xfffe"));
        fs::create_dir_all(root.path().join("usr/share/misc")).unwrap();
        let list = "# newer\n10de  NVIDIA Corporation\n\tfffe  GZ999 [Next]\n";
        fs::write(root.path().join(LISTS_OF_HOSTS[1]), list).unwrap();
        assert_eq!(named(&card(0xfffe), root.path()), gpu("NVIDIA Corporation", "GZ999 [Next]"));
        let unknown = Card { vendor: 0xfff0, device: 1, driver: None };
        assert_eq!(named(&unknown, root.path()), gpu("0xfff0", "0x0001"));
    }
}
