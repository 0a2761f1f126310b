//! Join tokens: each proves for a while, to whoever shows it first, that its bearer is the sidecar of one workload. It is good for one request
//! for a certificate, which may be made again as it was: an answer may be lost, and a sidecar whose token was spent on it could never join.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ringfence_xds::policy::spiffe::Member;
use sha2::{Digest, Sha256};

const TOKEN_BYTES: usize = 32;
/// In base64 without padding.
const TOKEN_CHARS: usize = 43;
/// Tokens that may wait to be used: several for each of ten thousand sidecars.
const MAX_TOKENS: usize = 65_536;

pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("{MAX_TOKENS} join tokens wait to be used")]
    TooMany,
    #[error("the system gave no random number")]
    Random,
}

/// Tokens that are still good, known by their hashes alone: what is stolen from here is of no use, and how long it takes to look one up says
/// nothing of any other. They end with the process.
#[derive(Debug, Default)]
pub(super) struct JoinTokens {
    given: Mutex<HashMap<[u8; 32], Given>>,
}

#[derive(Debug)]
struct Given {
    member: Member,
    until: Instant,
    /// Hash of the request that it was used for.
    used: Option<[u8; 32]>,
}

impl Given {
    fn is_good(&self, csr: &[u8], now: Instant) -> bool {
        now < self.until && self.used.is_none_or(|used| used == hash(csr))
    }
}

impl JoinTokens {
    pub(super) fn issue(&self, member: Member, now: Instant, ttl: Duration) -> Result<String, TokenError> {
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut given = self.given.lock();
        if given.len() >= MAX_TOKENS {
            given.retain(|_, token| now < token.until);
        }
        // An answer that was lost is asked for again at once.
        if given.len() >= MAX_TOKENS {
            given.retain(|_, token| token.used.is_none());
        }
        if given.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        given.insert(hash(token.as_bytes()), Given { member, until: now + ttl.min(MAX_TTL), used: None });
        Ok(token)
    }

    /// What `take` would yield now.
    pub(super) fn look(&self, token: &str, csr: &[u8], now: Instant) -> Option<Member> {
        if token.len() != TOKEN_CHARS {
            return None;
        }
        self.given.lock().get(&hash(token.as_bytes())).filter(|token| token.is_good(csr, now)).map(|token| token.member.clone())
    }

    /// Whom the token stands for; from now on for this request alone.
    pub(super) fn take(&self, token: &str, csr: &[u8], now: Instant) -> Option<Member> {
        if token.len() != TOKEN_CHARS {
            return None;
        }
        let mut given = self.given.lock();
        let token = given.get_mut(&hash(token.as_bytes())).filter(|token| token.is_good(csr, now))?;
        token.used = Some(hash(csr));
        Some(token.member.clone())
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn member(workload: &str) -> Member {
        Member::Workload { tenant: None, workload: workload.parse().unwrap() }
    }

    #[test]
    fn a_token_is_good_for_one_request_of_its_workload_and_not_for_ever() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        let issue = |workload: &str| tokens.issue(member(workload), now, TTL).unwrap();
        let (api, web, late) = (issue("api"), issue("web"), issue("late"));
        assert!(api.len() == TOKEN_CHARS && api != web);
        assert_eq!(tokens.look(&api, b"other", now), Some(member("api")), "a look uses nothing up");
        let last = now + TTL - Duration::from_millis(1);
        for (what, token, csr, at, wanted) in [
            ("good", &api, "one", now, Some(member("api"))),
            ("used", &api, "other", now, None),
            ("the same again", &api, "one", last, Some(member("api"))),
            ("used twice", &api, "other", last, None),
            ("the same too late", &api, "one", now + TTL, None),
            ("another's", &web, "one", last, Some(member("web"))),
            ("expired", &late, "one", now + TTL, None),
            ("empty", &String::new(), "one", now, None),
            ("cut", &api[..42].to_owned(), "one", now, None),
            ("huge", &"A".repeat(1 << 20), "one", now, None),
            ("invented", &"A".repeat(TOKEN_CHARS), "one", now, None),
        ] {
            assert_eq!(tokens.look(token, csr.as_bytes(), at), wanted, "{what}");
            assert_eq!(tokens.take(token, csr.as_bytes(), at), wanted, "{what}");
        }
    }

    #[test]
    fn of_many_who_show_it_at_once_one_is_believed() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        for _ in 0..50 {
            let token = tokens.issue(member("api"), now, TTL).unwrap();
            let (tokens, token, start) = (&tokens, &token, &std::sync::Barrier::new(8));
            let believed = std::thread::scope(|scope| {
                let show = |csr: u8| {
                    start.wait();
                    tokens.take(token, &[csr], now).is_some()
                };
                let threads: Vec<_> = (0..8).map(|csr| scope.spawn(move || show(csr))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|believed| *believed).count()
            });
            assert_eq!(believed, 1);
        }
    }

    #[test]
    fn they_are_so_many_and_those_that_are_used_or_expired_give_way() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        let used = tokens.issue(member("api"), now, TTL).unwrap();
        for _ in 1..MAX_TOKENS {
            tokens.issue(member("api"), now, TTL).unwrap();
        }
        assert_eq!(tokens.issue(member("api"), now, TTL), Err(TokenError::TooMany));
        tokens.take(&used, b"csr", now).unwrap();
        tokens.issue(member("api"), now, TTL).unwrap();
        assert_eq!(tokens.issue(member("api"), now, TTL), Err(TokenError::TooMany));
        tokens.issue(member("api"), now + TTL, TTL).unwrap();
        assert_eq!(tokens.given.lock().len(), 1);
    }

    #[test]
    fn nothing_of_a_token_is_kept() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        let token = tokens.issue(member("api"), now, TTL).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let (kept, _) = tokens.given.lock().drain().next().unwrap();
        assert!(kept.as_slice() != bytes && kept == <[u8; 32]>::from(Sha256::digest(token)));
    }
}
