//! Which peers a listener serves: single addresses and networks in CIDR notation.

use std::net::IpAddr;

/// A list of networks; an empty one takes everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers(Vec<(IpAddr, u8)>);

impl Peers {
    /// Reads `192.0.2.7`, `10.1.0.0/16`, `2001:db8::/32`; gives back what is none of these.
    pub fn parse(texts: &[String]) -> Result<Self, Vec<String>> {
        let read = |text: &String| network(text).ok_or_else(|| text.clone());
        let (good, bad): (Vec<_>, Vec<_>) = texts.iter().map(read).partition(Result::is_ok);
        match bad.is_empty() {
            true => Ok(Self(good.into_iter().flatten().collect())),
            false => Err(bad.into_iter().filter_map(Result::err).collect()),
        }
    }

    /// Whether the listener serves this address.
    pub fn allow(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.is_empty() || self.0.iter().any(|(network, prefix)| within(peer, *network, *prefix))
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest);
    (prefix <= longest).then_some((address, prefix))
}

fn within(peer: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let differs = match (peer, network) {
        (IpAddr::V4(peer), IpAddr::V4(network)) => u128::from(peer.to_bits() ^ network.to_bits()) << 96,
        (IpAddr::V6(peer), IpAddr::V6(network)) => peer.to_bits() ^ network.to_bits(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    differs.leading_zeros() >= u32::from(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &[&str], peer: &str) -> bool {
        let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
        Peers::parse(&list).unwrap().allow(peer.parse().unwrap())
    }

    #[test]
    fn single_addresses_and_networks_of_both_families() {
        assert!(allows(&[], "198.51.100.1"));
        assert!(allows(&["192.0.2.7"], "192.0.2.7"));
        assert!(!allows(&["192.0.2.7"], "192.0.2.8"));
        assert!(allows(&["10.1.0.0/16", "192.0.2.7"], "10.1.255.3"));
        assert!(!allows(&["10.1.0.0/16"], "10.2.0.3"));
        assert!(allows(&["10.128.0.0/9"], "10.200.0.1"));
        assert!(!allows(&["10.128.0.0/9"], "10.100.0.1"));
        assert!(allows(&["0.0.0.0/0"], "203.0.113.9") && !allows(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(allows(&["2001:db8::/32"], "2001:db8:1::1") && !allows(&["2001:db8::/32"], "2001:db9::1"));
        assert!(allows(&["10.1.0.0/16"], "::ffff:10.1.2.3"), "IPv4 on an IPv6 socket");
    }

    #[test]
    fn what_is_no_address_is_given_back() {
        let list = ["10.0.0.0/33", "pas.local", "10.0.0.1"].map(str::to_owned);
        assert_eq!(Peers::parse(&list), Err(vec!["10.0.0.0/33".to_owned(), "pas.local".to_owned()]));
    }
}
