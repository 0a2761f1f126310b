//! The data of records, from text to wire form.
//!
//! The types that rules are made of are read here; the rest of those with a form of their own by hickory-proto, and any type at all as
//! `\# LENGTH HEX` (RFC 3597 §5).

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    rr::{RData, RecordType},
    serialize::binary::BinEncodable,
};

use super::{
    super::{
        name::{Name, unescape},
        record::rtype,
    },
    lex::Token,
    show, ttl_of,
};

/// A record type by its mnemonic, or as `TYPE123` (RFC 3597 §5). `None`: no type is called so.
pub fn type_of(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 16)?.to_ascii_uppercase();
    if let Some(number) = text.strip_prefix("TYPE") {
        return number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok()).flatten();
    }
    match &*text {
        "DNAME" => Some(rtype::DNAME),
        "RP" => Some(rtype::RP),
        _ => text.parse::<RecordType>().ok().map(u16::from),
    }
}

/// Appends to nothing: `rdata` is emptied first.
pub(super) fn parse<'a>(of: u16, tokens: impl Iterator<Item = Token<'a>>, origin: &Name, rdata: &mut Vec<u8>) -> Result<(), String> {
    rdata.clear();
    let mut fields = Fields { tokens: tokens.peekable(), origin, rdata };
    if fields.tokens.next_if(|token| !token.quoted && token.text == b"\\#").is_some() {
        fields.unknown()?;
    } else {
        match of {
            rtype::CNAME | rtype::NS | rtype::PTR | rtype::DNAME => fields.name()?,
            rtype::A => fields.address::<Ipv4Addr, 4>(Ipv4Addr::octets, "an IPv4 address")?,
            rtype::AAAA => fields.address::<Ipv6Addr, 16>(Ipv6Addr::octets, "an IPv6 address")?,
            rtype::TXT => fields.strings()?,
            rtype::MX => {
                fields.u16()?;
                fields.name()?;
            }
            rtype::SRV => {
                (0..3).try_for_each(|_| fields.u16())?;
                fields.name()?;
            }
            rtype::RP => {
                fields.name()?;
                fields.name()?;
            }
            rtype::SOA => {
                fields.name()?;
                fields.name()?;
                fields.u32(|text| std::str::from_utf8(text).ok()?.parse().ok(), "a serial number")?;
                (0..4).try_for_each(|_| fields.u32(ttl_of, "a time"))?;
            }
            _ => return fields.other(of),
        }
    }
    match fields.tokens.next() {
        Some(token) => Err(format!("`{}` is one value too many", show(token.text))),
        None => Ok(()),
    }
}

struct Fields<'a, 'o, I: Iterator<Item = Token<'a>>> {
    tokens: std::iter::Peekable<I>,
    origin: &'o Name,
    rdata: &'o mut Vec<u8>,
}

impl<'a, I: Iterator<Item = Token<'a>>> Fields<'a, '_, I> {
    fn next(&mut self, what: &str) -> Result<&'a [u8], String> {
        self.tokens.next().map(|token| token.text).ok_or_else(|| format!("{what} is missing"))
    }

    fn name(&mut self) -> Result<(), String> {
        let text = self.next("a name")?;
        let name = Name::parse(text, self.origin).map_err(|error| format!("`{}`: {error}", show(text)))?;
        self.rdata.extend(name.as_wire());
        Ok(())
    }

    fn address<T: std::str::FromStr, const N: usize>(&mut self, octets: impl Fn(&T) -> [u8; N], what: &str) -> Result<(), String> {
        let text = self.next(what)?;
        let address = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        self.rdata.extend(octets(&address.ok_or_else(|| format!("`{}` is not {what}", show(text)))?));
        Ok(())
    }

    fn u16(&mut self) -> Result<(), String> {
        let text = self.next("a number")?;
        let number: Option<u16> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        self.rdata.extend(number.ok_or_else(|| format!("`{}` must be a number up to 65535", show(text)))?.to_be_bytes());
        Ok(())
    }

    fn u32(&mut self, parse: impl Fn(&[u8]) -> Option<u32>, what: &str) -> Result<(), String> {
        let text = self.next(what)?;
        self.rdata.extend(parse(text).ok_or_else(|| format!("`{}` is not {what}", show(text)))?.to_be_bytes());
        Ok(())
    }

    /// Character strings, at least one, of 255 octets each (RFC 1035 §3.3).
    fn strings(&mut self) -> Result<(), String> {
        let mut text = self.next("a text")?;
        loop {
            let start = self.rdata.len();
            self.rdata.push(0);
            let mut rest = text;
            while let Some((&octet, after)) = rest.split_first() {
                let (octet, taken) = match octet {
                    b'\\' => unescape(after).ok_or("an escape must be \\DDD up to 255, or a backslash and the octet itself")?,
                    octet => (octet, 0),
                };
                self.rdata.push(octet);
                rest = &after[taken..];
            }
            let length = self.rdata.len() - start - 1;
            self.rdata[start] = u8::try_from(length).map_err(|_| format!("a string has {length} octets; 255 are the most"))?;
            match self.tokens.next() {
                Some(next) => text = next.text,
                None => return self.bounded(),
            }
        }
    }

    /// RFC 3597 §5.
    fn unknown(&mut self) -> Result<(), String> {
        let text = self.next("the length")?;
        let length: Option<u16> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let length = length.ok_or_else(|| format!("`{}` must be the number of octets", show(text)))?;
        let mut half = None;
        for token in self.tokens.by_ref() {
            for &digit in token.text {
                let value = char::from(digit).to_digit(16).ok_or_else(|| format!("`{}` is not hexadecimal", show(token.text)))? as u8;
                match half.take() {
                    None => half = Some(value),
                    Some(high) => self.rdata.push(high << 4 | value),
                }
            }
        }
        if half.is_some() || self.rdata.len() != usize::from(length) {
            return Err(format!("there must be {length} octets, as two hexadecimal digits each"));
        }
        Ok(())
    }

    /// A type whose form hickory-proto knows.
    fn other(&mut self, of: u16) -> Result<(), String> {
        // Which value is a name: it does not know the zone's origin.
        let name_at = match of {
            rtype::SVCB | rtype::HTTPS => Some(1),
            rtype::NAPTR => Some(5),
            _ => None,
        };
        let mut text = String::new();
        for (index, token) in self.tokens.by_ref().enumerate() {
            let value = String::from_utf8_lossy(token.text);
            let value = match name_at == Some(index) {
                true => Name::parse(token.text, self.origin).map_err(|error| format!("`{}`: {error}", show(token.text)))?.to_string(),
                false => value.into_owned(),
            };
            let quote = if token.quoted { "\"" } else { "" };
            text.extend([quote, &value, quote, " "]);
        }
        let kind = RecordType::from(of);
        let data =
            RData::try_from_str(kind, &text).map_err(|error| format!("{kind}: {error}; any type can be written as \\# LENGTH HEX"))?;
        *self.rdata = data.to_bytes().map_err(|error| format!("{kind}: {error}"))?;
        self.bounded()
    }

    fn bounded(&self) -> Result<(), String> {
        match self.rdata.len() {
            0..=0xffff => Ok(()),
            length => Err(format!("the record has {length} octets of data; 65535 are the most")),
        }
    }
}
