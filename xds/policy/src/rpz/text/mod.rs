//! A policy zone as text: a master file (RFC 1035 §5.1, RFC 2308 §4, RFC 3597 §5) into the rules of a [`Zone`](super::Zone).
//!
//! Lenient where the field is: SOA and NS may be missing, TTLs may have units, a record may inherit owner, TTL and class. `$INCLUDE` and
//! `$GENERATE` are refused.
//!
//! A record that cannot be read is fatal, for what the next ones inherit is then not known: the zone must not come into force. A record that
//! is no usable rule is left out and told; all the others count.

mod lex;
mod rdata;

pub use rdata::type_of;

use lex::{Entry, Lexer};

use super::{
    compile::{Compiler, Outcome},
    name::Name,
    record::{Record, is_data_type, rtype},
};

/// Something wrong with a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u32,
    /// The owner name, where it is known.
    pub owner: Option<String>,
    pub message: String,
    /// The zone must not come into force.
    pub fatal: bool,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(owner) = &self.owner {
            write!(f, "{owner}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// What became of a zone's text.
#[derive(Debug)]
pub struct Compiled {
    /// `None`: a fault is fatal.
    pub bytes: Option<Vec<u8>>,
    pub outcome: Outcome,
}

/// The TTL where the zone says none at all.
const DEFAULT_TTL: u32 = 3600;
/// Fatal faults that are told, at most.
const MAX_FATAL: usize = 20;

/// Among how many records at the start of a zone its SOA record must stand to name it. It is the first by custom (RFC 1035 §5.2).
const SOA_WITHIN: usize = 64;

/// Compiles a zone. `origin`: its name, for texts that do not begin with `$ORIGIN`; an SOA record names the zone whatever its owner is.
pub fn compile(text: &[u8], origin: Option<&Name>) -> Compiled {
    let mut zone: Option<Compiler> = apex(text, origin).map(Compiler::new);
    let mut fatal = Vec::new();
    read(text, origin, |line, origin, read| {
        match read {
            Ok(record) => {
                let zone = zone.get_or_insert_with(|| Compiler::new(origin.clone()));
                if zone.is_full() {
                    // Half a list is no list.
                    fatal.push(Fault { line, owner: None, message: "the zone has too many records".to_owned(), fatal: true });
                    return false;
                }
                zone.add(record, line);
            }
            Err(message) => fatal.push(Fault { line, owner: None, message, fatal: true }),
        }
        // One mistake may make every line after it one.
        fatal.len() < MAX_FATAL
    });
    let mut zone = zone.unwrap_or_else(|| Compiler::new(origin.cloned().unwrap_or(Name::root())));
    if fatal.is_empty() {
        let (bytes, outcome) = zone.finish();
        return Compiled { bytes: Some(bytes), outcome };
    }
    let mut outcome = std::mem::take(zone.outcome());
    fatal.append(&mut outcome.faults);
    outcome.faults = fatal;
    Compiled { bytes: None, outcome }
}

/// The owner of the SOA record.
fn apex(text: &[u8], origin: Option<&Name>) -> Option<Name> {
    let (mut apex, mut left) = (None, SOA_WITHIN);
    read(text, origin, |_, _, read| {
        if let Ok(record) = read
            && record.rtype == rtype::SOA
        {
            apex = Some(record.owner.clone());
        }
        left -= 1;
        apex.is_none() && left > 0
    });
    apex
}

/// Hands every record to `each`, with its line and the origin in force, for as long as that returns true.
pub(super) fn read(text: &[u8], origin: Option<&Name>, mut each: impl FnMut(u32, &Name, Result<&Record, String>) -> bool) {
    let mut state = State { origin: origin.cloned().unwrap_or(Name::root()), owner: None, ttl: None, last_ttl: None };
    let mut lexer = Lexer::new(text);
    let mut entry = Entry::default();
    let mut record = Record { owner: Name::root(), rtype: 0, ttl: 0, rdata: Vec::new() };
    while let Some(lexed) = lexer.next_into(&mut entry) {
        let more = match lexed.map_err(str::to_owned).and_then(|()| state.take(&entry, &mut record)) {
            Ok(false) => true,
            Ok(true) => each(entry.line, &state.origin, Ok(&record)),
            Err(message) => each(entry.line, &state.origin, Err(message)),
        };
        if !more {
            return;
        }
    }
}

/// What a record inherits.
struct State {
    origin: Name,
    owner: Option<Name>,
    /// `$TTL`.
    ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl State {
    /// Whether `entry` is a record, which then stands in `record`.
    fn take(&mut self, entry: &Entry, record: &mut Record) -> Result<bool, String> {
        let mut tokens = entry.tokens().peekable();
        let Some(first) = tokens.peek() else { return Ok(false) };
        if !entry.indented && first.text.starts_with(b"$") {
            return self.directive(entry).map(|()| false);
        }
        if !entry.indented {
            let owner = Name::parse(first.text, &self.origin).map_err(|error| format!("owner `{}`: {error}", show(first.text)))?;
            self.owner = Some(owner);
            tokens.next();
        }
        record.owner = self.owner.clone().ok_or("the first record must have an owner")?;

        let (mut ttl, mut class) = (None, false);
        let of = loop {
            let token = tokens.next().ok_or("a record must have a type")?;
            if ttl.is_none()
                && let Some(seconds) = ttl_of(token.text)
            {
                ttl = Some(seconds);
            } else if !class && is_class(token.text)? {
                class = true;
            } else {
                break rdata::type_of(token.text).ok_or_else(|| format!("`{}` is no record type", show(token.text)))?;
            }
        };
        if !is_data_type(of) {
            return Err("a zone holds no such type".to_owned());
        }
        record.rtype = of;
        rdata::parse(of, tokens, &self.origin, &mut record.rdata)?;
        record.ttl = ttl.or(self.ttl).or(self.last_ttl).unwrap_or(match of {
            // RFC 2308 §4: the SOA record's last field was once the default.
            rtype::SOA => record.rdata.last_chunk().map_or(DEFAULT_TTL, |minimum| u32::from_be_bytes(*minimum)),
            _ => DEFAULT_TTL,
        });
        self.last_ttl = Some(record.ttl);
        Ok(true)
    }

    fn directive(&mut self, entry: &Entry) -> Result<(), String> {
        let mut tokens = entry.tokens().map(|token| token.text);
        let name = tokens.next().unwrap_or_default().to_ascii_uppercase();
        let argument = tokens.next();
        match (&*name, argument) {
            (b"$ORIGIN", Some(argument)) => {
                self.origin = Name::parse(argument, &self.origin).map_err(|error| format!("$ORIGIN `{}`: {error}", show(argument)))?;
            }
            (b"$TTL", Some(argument)) => {
                self.ttl = Some(ttl_of(argument).ok_or_else(|| format!("$TTL `{}`: {TTL_FORM}", show(argument)))?);
            }
            (b"$ORIGIN" | b"$TTL", None) => return Err(format!("{} must have a value", show(&name))),
            (b"$INCLUDE" | b"$GENERATE", _) => return Err(format!("{} is not supported: the records must be written out", show(&name))),
            _ => return Err(format!("`{}` is no directive; known are $ORIGIN and $TTL", show(&name))),
        }
        Ok(())
    }
}

const TTL_FORM: &str = "a TTL must be seconds up to 2147483647, or numbers with the units w, d, h, m and s";

/// Seconds: `300`, `1h30m`. `None`: it is no TTL.
fn ttl_of(text: &[u8]) -> Option<u32> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let (mut total, mut number, mut open) = (0u32, 0u32, false);
    for octet in text {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = number.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
                open = true;
                continue;
            }
            _ if !open => return None,
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        (number, open) = (0, false);
    }
    // RFC 2181 §8
    total.checked_add(number).filter(|total| *total <= i32::MAX as u32)
}

fn is_class(text: &[u8]) -> Result<bool, String> {
    if text.eq_ignore_ascii_case(b"IN") || text.eq_ignore_ascii_case(b"CLASS1") {
        return Ok(true);
    }
    if [&b"CH"[..], b"HS", b"CS"].iter().any(|class| text.eq_ignore_ascii_case(class)) {
        return Err(format!("class {} cannot be a policy's; it must be IN", show(text)));
    }
    Ok(false)
}

/// For a message: not more of what was written than a name can be.
fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(80)]).escape_debug().collect()
}

#[cfg(test)]
mod tests;
