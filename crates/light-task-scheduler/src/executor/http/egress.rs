//! Which addresses may be connected to. Pure.
//!
//! What is checked is the address that is connected to, not the name: a name may lead anywhere, and elsewhere the next
//! time it is looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where calls may go. Default: public addresses only.
///
/// Addresses that hand out the secrets of a cloud machine (link-local), multicast and unspecified ones are never
/// connected to, whatever is allowed; neither are they behind another notation (mapped or translated IPv6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Also loopback and private networks.
    pub private: bool,
    /// Also these networks, such as `10.1.0.0/16` or `fd00::/8`.
    pub networks: Vec<String>,
}

impl Egress {
    /// Loopback and private networks too: for services in the same network as the scheduler.
    pub fn private() -> Self {
        Egress { private: true, networks: Vec::new() }
    }

    /// The policy, checked. Fails for a network that is none.
    pub(super) fn rules(&self) -> Result<Rules> {
        let networks = self.networks.iter().map(|text| Network::parse(text)).collect::<Result<_>>()?;
        Ok(Rules { private: self.private, networks })
    }
}

/// A checked [`Egress`].
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    private: bool,
    networks: Vec<Network>,
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Public,
    Private,
    Never,
}

impl Rules {
    /// Whether this address may be connected to.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let address = plain(address);
        match scope(address) {
            Scope::Public => true,
            Scope::Never => false,
            Scope::Private => self.private || self.networks.iter().any(|network| network.contains(address)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Network> {
        let bad = || Error::invalid(format!("`{text}` is no network such as 10.1.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        if prefix > bits(address).1 { Err(bad()) } else { Ok(Network { address, prefix }) }
    }

    fn contains(self, address: IpAddr) -> bool {
        let ((ours, length), (theirs, other)) = (bits(self.address), bits(address));
        let rest = length - self.prefix;
        length == other && (rest >= u128::BITS || ours >> rest == theirs >> rest)
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), Ipv4Addr::BITS),
        IpAddr::V6(v6) => (v6.to_bits(), Ipv6Addr::BITS),
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] if high != 0 => v4(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(v4: Ipv4Addr) -> Scope {
    match v4.octets() {
        // This host, link-local (the metadata services of clouds), multicast, reserved and broadcast.
        [0, ..] | [169, 254, ..] | [224..=255, ..] => Scope::Never,
        // Carrier-grade NAT, protocol assignments and benchmarking are nobody's public addresses.
        [127 | 10, ..] | [100, 64..=127, ..] | [192, 168, ..] | [172, 16..=31, ..] => Scope::Private,
        [192, 0, 0, _] | [198, 18..=19, ..] => Scope::Private,
        _ => Scope::Public,
    }
}

fn scope_v6(v6: Ipv6Addr) -> Scope {
    /// The metadata service of one cloud, in an address range that is private otherwise.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6 == METADATA {
        Scope::Never
    } else if v6.is_loopback() || v6.is_unique_local() {
        Scope::Private
    } else {
        Scope::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(egress: &Egress, address: &str) -> bool {
        egress.rules().unwrap().allows(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_by_default() {
        let public = Egress::default();
        for address in ["93.184.216.34", "2606:2800:220:1::1", "100.128.0.1", "172.32.0.1"] {
            assert!(allowed(&public, address), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "0.0.0.0"]
        {
            assert!(!allowed(&public, address), "{address}");
        }
    }

    #[test]
    fn another_notation_is_the_same_address() {
        for address in ["::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "::127.0.0.1", "::ffff:10.0.0.1"] {
            assert!(!allowed(&Egress::default(), address), "{address}");
        }
        assert!(allowed(&Egress::default(), "::ffff:93.184.216.34"));
    }

    #[test]
    fn some_are_never_allowed() {
        let all = Egress { private: true, networks: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()] };
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1", "::"] {
            assert!(!allowed(&all, address), "{address}");
        }
        assert!(allowed(&all, "127.0.0.1") && allowed(&all, "::1"));
    }

    #[test]
    fn a_network_is_allowed_and_no_more() {
        let one = Egress { private: false, networks: vec!["10.1.0.0/16".to_owned(), "fd12::/16".to_owned()] };
        assert!(allowed(&one, "10.1.2.3") && allowed(&one, "::ffff:10.1.2.3") && allowed(&one, "fd12::9"));
        assert!(!allowed(&one, "10.2.0.1") && !allowed(&one, "127.0.0.1") && !allowed(&one, "fd13::1"));
        for bad in ["10.1.0.0", "10.1.0.0/33", "x/8", "::/129"] {
            assert!(Egress { private: false, networks: vec![bad.to_owned()] }.rules().is_err(), "{bad}");
        }
    }
}
