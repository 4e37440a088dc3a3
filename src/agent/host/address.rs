//! The address that clients and brokers are told.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An interface was asked for that cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network interface {wanted} has no address; those with one are: {there}")]
pub struct AddressError {
    wanted: String,
    there: String,
}

/// An address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    address: IpAddr,
}

/// The address others reach the machine by: that of the `preferred` interface, else the first that is not a loopback or
/// link-local one. IPv4 before IPv6. Names of interfaces are case sensitive, as documented.
///
/// # Errors
/// When the preferred interface has no address: another would send clients into a network they may not reach.
pub fn own_address(preferred: Option<&str>) -> Result<IpAddr, AddressError> {
    choose(&interfaces(), preferred)
}

fn interfaces() -> Vec<Interface> {
    let entries = getifaddrs().into_iter().flatten();
    let up = entries.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP));
    up.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let address = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some(Interface { name: entry.interface_name, address })
    })
    .collect()
}

fn choose(interfaces: &[Interface], preferred: Option<&str>) -> Result<IpAddr, AddressError> {
    let mut usable: Vec<&Interface> =
        interfaces.iter().filter(|interface| !is_link_local(&interface.address)).collect();
    usable.sort_by_key(|interface| interface.address.is_ipv6());
    let Some(wanted) = preferred else {
        let first = usable.iter().find(|interface| !interface.address.is_loopback());
        return Ok(first.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |interface| interface.address));
    };
    let found = usable.iter().find(|interface| interface.name == wanted).map(|interface| interface.address);
    found.ok_or_else(|| {
        let mut names: Vec<&str> = usable.iter().map(|interface| interface.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        AddressError { wanted: wanted.to_owned(), there: names.join(", ") }
    })
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_interface_is_told_else_the_first_that_others_reach() {
        let list = |entries: &[(&str, &str)]| {
            let interface =
                |(name, address): &(&str, &str)| Interface { name: (*name).into(), address: address.parse().unwrap() };
            entries.iter().map(interface).collect::<Vec<_>>()
        };
        let host = list(&[
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::7"),
            ("eth0", "10.0.0.7"),
            ("eth1", "169.254.3.4"),
            ("eth1", "192.168.1.7"),
            ("eth2", "2001:db8::9"),
            ("eth3", "fe80::3"),
        ]);
        for (preferred, expected) in [
            (None, "10.0.0.7"),
            (Some("eth0"), "10.0.0.7"),
            (Some("eth1"), "192.168.1.7"),
            (Some("eth2"), "2001:db8::9"),
            (Some("lo"), "127.0.0.1"),
        ] {
            assert_eq!(choose(&host, preferred).unwrap(), expected.parse::<IpAddr>().unwrap(), "{preferred:?}");
        }
        for wanted in ["eth3", "ETH0", "eth"] {
            assert_eq!(
                choose(&host, Some(wanted)).unwrap_err().to_string(),
                format!("the network interface {wanted} has no address; those with one are: eth0, eth1, eth2, lo")
            );
        }
        assert_eq!(choose(&list(&[("lo", "127.0.0.1")]), None).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(own_address(None).is_ok());
    }
}
