//! Networks by their prefix, and addresses moved from one to another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A network: `10.0.0.0/8`, `2001:db8::/32`. An address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    is_v6: bool,
    /// Bits after the prefix are zero. Those of IPv4 are the lower 32.
    address: u128,
    /// The bits that are the network's own to give.
    hosts: u128,
}

impl Prefix {
    /// Whether an address, those of IPv4 in the lower 32 bits, is one of its own.
    #[inline]
    #[must_use]
    pub fn holds(&self, is_v6: bool, address: u128) -> bool {
        self.is_v6 == is_v6 && address & !self.hosts == self.address
    }

    fn bits(&self) -> u32 {
        let all = if self.is_v6 { 128 } else { 32 };
        all - self.hosts.count_ones()
    }
}

/// The address of a number, those of IPv4 in the lower 32 bits.
pub(crate) fn address_of(is_v6: bool, number: u128) -> IpAddr {
    if is_v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", address_of(self.is_v6, self.address), self.bits())
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let expected =
            || format!("expected a prefix such as `10.0.0.0/8` or `2001:db8::/32`, found `{text}`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let (is_v6, number, all) = match address {
            IpAddr::V4(address) => (false, u32::from(address).into(), 32),
            IpAddr::V6(address) => (true, u128::from(address), 128),
        };
        let bits: u32 = bits.map_or(Ok(all), str::parse).map_err(|_| expected())?;
        let free = all.checked_sub(bits).ok_or_else(expected)?;
        let hosts = u128::MAX.checked_shr(128 - free).unwrap_or(0);
        Ok(Prefix { is_v6, address: number & !hosts, hosts })
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Moves the addresses of one network into another: `FROM=TO`. What follows TO's prefix stays
/// as it was, so no two addresses become one where TO is as large as FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    from: Prefix,
    to: Prefix,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.from, self.to)
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Mapping, String> {
        let Some((from, to)) = text.split_once('=') else {
            return Err("expected `PREFIX=PREFIX`, such as `0.0.0.0/0=10.0.0.0/8`".to_owned());
        };
        let (from, to): (Prefix, Prefix) = (from.parse()?, to.parse()?);
        if from.is_v6 != to.is_v6 {
            return Err(format!("`{from}` and `{to}` are not of one IP version"));
        }
        Ok(Mapping { from, to })
    }
}

/// Several [`Mapping`]s, of which the first that knows an address moves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap(pub Vec<Mapping>);

impl AddressMap {
    /// Where an address goes, those of IPv4 in the lower 32 bits.
    #[inline]
    #[must_use]
    pub fn apply(&self, is_v6: bool, address: u128) -> u128 {
        match self.0.iter().find(|mapping| mapping.from.holds(is_v6, address)) {
            Some(Mapping { to, .. }) => to.address | address & to.hosts,
            None => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> (bool, u128) {
        match text.parse().unwrap() {
            IpAddr::V4(address) => (false, u32::from(address).into()),
            IpAddr::V6(address) => (true, address.into()),
        }
    }

    #[test]
    fn prefixes_are_read_and_written() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("fe80::1", "fe80::1/128"),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), shown);
            let (is_v6, address) = number(text.split('/').next().unwrap());
            assert!(prefix.holds(is_v6, address) && !prefix.holds(!is_v6, address));
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "/8", "10.0.0.0/"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_mapping_that_knows_an_address_moves_it() {
        let map = ["192.168.0.0/16=10.7.0.0/16", "0.0.0.0/0=172.16.0.0/12", "::/0=2001:db8::/32"];
        let map = AddressMap(map.iter().map(|text| text.parse().unwrap()).collect());
        for (address, expected) in
            [("192.168.3.4", "10.7.3.4"), ("8.8.4.4", "172.24.4.4"), ("2620:fe::9", "2001:db8::9")]
        {
            let (is_v6, address) = number(address);
            assert_eq!(address_of(is_v6, map.apply(is_v6, address)).to_string(), expected);
        }
        assert_eq!(AddressMap::default().apply(false, 5), 5);
        for wrong in ["10.0.0.0/8", "10.0.0.0/8=::/0", "10.0.0.0/8=11.0.0.0/40"] {
            assert!(wrong.parse::<Mapping>().is_err(), "{wrong}");
        }
    }
}
