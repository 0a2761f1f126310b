//! Join tokens: each proves once, and for a while, that its bearer is the sidecar of one workload.

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

/// Tokens that nobody has used yet, known by their hashes alone: what is stolen from here is of no use, and how long it takes to look one
/// up says nothing of any other. They end with the process.
#[derive(Debug, Default)]
pub(super) struct JoinTokens {
    waiting: Mutex<HashMap<[u8; 32], Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    member: Member,
    until: Instant,
}

impl JoinTokens {
    pub(super) fn issue(&self, member: Member, now: Instant, ttl: Duration) -> Result<String, TokenError> {
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| TokenError::Random)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_TOKENS {
            waiting.retain(|_, token| now < token.until);
        }
        if waiting.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        waiting.insert(hash(&token), Waiting { member, until: now + ttl.min(MAX_TTL) });
        Ok(token)
    }

    /// What `take` would yield now.
    pub(super) fn look(&self, token: &str, now: Instant) -> Option<Member> {
        if token.len() != TOKEN_CHARS {
            return None;
        }
        self.waiting.lock().get(&hash(token)).filter(|token| now < token.until).map(|token| token.member.clone())
    }

    /// Whom the token stands for; never again afterwards.
    pub(super) fn take(&self, token: &str, now: Instant) -> Option<Member> {
        if token.len() != TOKEN_CHARS {
            return None;
        }
        let taken = self.waiting.lock().remove(&hash(token))?;
        (now < taken.until).then_some(taken.member)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn member(workload: &str) -> Member {
        Member::Workload { tenant: None, workload: workload.parse().unwrap() }
    }

    #[test]
    fn a_token_is_good_once_for_its_workload_and_not_for_ever() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        let issue = |workload: &str| tokens.issue(member(workload), now, TTL).unwrap();
        let (api, web, late) = (issue("api"), issue("web"), issue("late"));
        assert!(api.len() == TOKEN_CHARS && api != web);
        assert_eq!(tokens.look(&api, now), Some(member("api")));
        for (what, token, at, wanted) in [
            ("good", &api, now, Some(member("api"))),
            ("used", &api, now, None),
            ("another's", &web, now + TTL - Duration::from_millis(1), Some(member("web"))),
            ("expired", &late, now + TTL, None),
            ("expired once", &late, now, None),
            ("empty", &String::new(), now, None),
            ("cut", &api[..42].to_owned(), now, None),
            ("huge", &"A".repeat(1 << 20), now, None),
            ("invented", &"A".repeat(TOKEN_CHARS), now, None),
        ] {
            assert_eq!(tokens.look(token, at), wanted, "{what}");
            assert_eq!(tokens.take(token, at), wanted, "{what}");
        }
    }

    #[test]
    fn of_many_who_show_it_at_once_one_is_believed() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        for _ in 0..50 {
            let token = tokens.issue(member("api"), now, TTL).unwrap();
            let start = std::sync::Barrier::new(8);
            let believed = std::thread::scope(|scope| {
                let show = || {
                    start.wait();
                    tokens.take(&token, now).is_some()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(show)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|believed| *believed).count()
            });
            assert_eq!(believed, 1);
        }
    }

    #[test]
    fn they_are_so_many_and_expired_ones_give_way() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        for _ in 0..MAX_TOKENS {
            tokens.issue(member("api"), now, TTL).unwrap();
        }
        assert_eq!(tokens.issue(member("api"), now, TTL), Err(TokenError::TooMany));
        tokens.issue(member("api"), now + TTL, TTL).unwrap();
        assert_eq!(tokens.waiting.lock().len(), 1);
    }

    #[test]
    fn nothing_of_a_token_is_kept() {
        let (tokens, now) = (JoinTokens::default(), Instant::now());
        let token = tokens.issue(member("api"), now, TTL).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let (kept, _) = tokens.waiting.lock().drain().next().unwrap();
        assert!(kept.as_slice() != bytes && kept == <[u8; 32]>::from(Sha256::digest(token)));
    }
}
