//! Pages of lists.
//!
//! A page token says behind which object the next page starts and which query, of whom, it belongs to. It is sealed with
//! the keys that access tokens are signed with, as these are the same on every replica and after restarts.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

use super::super::App;
use super::super::problem::Problem;
use super::super::store::Keys;
use super::super::store::Position;
use crate::token::Kind;

/// What page tokens are sealed for.
const PURPOSE: &str = "page";

/// Most objects of a page, and the default.
const RESULTS_MAX: i64 = 1000;

/// Where a page starts, how long it may be and which query it belongs to.
pub struct Page {
    /// Behind this object; absent: at the beginning.
    pub after: Option<Position>,
    /// Most objects.
    pub limit: usize,
    query: String,
    keys: Arc<Keys>,
    now: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Token {
    query: String,
    created: Timestamp,
    uid: String,
}

impl Page {
    /// Reads what a request says of its page. `query` is everything else it says, and who asks.
    ///
    /// # Errors
    /// When a value is out of range, or the token is not one of this query.
    pub fn parse(
        app: &App,
        max_results: Option<i64>,
        next_token: Option<&str>,
        query: &impl Serialize,
    ) -> Result<Self, Problem> {
        let keys = app.store.keys(Kind::Access).ok_or(Problem::Starting)?;
        let limit = max_results.unwrap_or(RESULTS_MAX);
        if !(1..=RESULTS_MAX).contains(&limit) {
            return Err(Problem::Invalid(format!("MaxResults must be from 1 to {RESULTS_MAX}")));
        }
        let query = serde_json::to_vec(query).map_err(|error| Problem::Internal(Box::new(error)))?;
        let query = hex::encode(&Sha256::digest(query)[..8]);
        let after = match next_token {
            // What clients that know no `null` send on the first page.
            None | Some("") => None,
            Some(text) => Some(
                read(&keys, text)
                    .filter(|token| token.query == query)
                    .map(|token| Position { created: token.created, uid: token.uid })
                    .ok_or_else(|| Problem::Invalid("NextToken is not valid for this request".to_owned()))?,
            ),
        };
        Ok(Self { after, limit: usize::try_from(limit).unwrap_or(1), query, keys, now: (app.now)() })
    }

    /// Cuts `objects`, one more than the page may have, to the page; with more behind it, also the token of the next.
    pub fn cut<T>(&self, mut objects: Vec<T>, position: impl Fn(&T) -> Position) -> (Vec<T>, Option<String>) {
        if objects.len() <= self.limit {
            return (objects, None);
        }
        objects.truncate(self.limit);
        let next = objects.last().and_then(|last| {
            let Position { created, uid } = position(last);
            let token = Token { query: self.query.clone(), created, uid };
            let text = serde_json::to_vec(&token).expect("a token is plain data");
            self.keys.private.seal(PURPOSE, &text, self.now)
        });
        (objects, next)
    }

    /// Sorts `objects` and leaves those behind the start of the page, one more than it may have.
    pub fn select<T>(&self, mut objects: Vec<T>, position: impl Fn(&T) -> Position) -> Vec<T> {
        objects.sort_by_cached_key(&position);
        objects.retain(|object| self.after.as_ref().is_none_or(|after| position(object) > *after));
        objects.truncate(self.limit + 1);
        objects
    }
}

fn read(keys: &Keys, text: &str) -> Option<Token> {
    serde_json::from_slice(&keys.private.unseal(PURPOSE, text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::Rules;
    use super::super::super::memory::Memory;
    use super::super::super::memory::now;
    use super::*;
    use crate::token::KeySet;

    fn app() -> (Arc<Memory>, App) {
        let memory = Arc::new(Memory::new());
        (Arc::clone(&memory), App::plain(memory, Rules::default(), now))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "pages hold objects, and ask of references")]
    fn position(number: &u64) -> Position {
        Position { created: Timestamp::UNIX_EPOCH, uid: format!("{number:03}") }
    }

    fn walk(page_size: i64, count: u64) -> Vec<Vec<u64>> {
        let (_, app) = app();
        let (mut pages, mut token) = (Vec::new(), None);
        loop {
            let page = Page::parse(&app, Some(page_size), token.as_deref(), &"q").unwrap();
            let (objects, next) = page.cut(page.select((0..count).rev().collect(), position), position);
            pages.push(objects);
            match next {
                Some(next) => token = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_cover_everything_once_and_the_last_has_no_token() {
        assert_eq!(walk(2, 5), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(walk(2, 4), [vec![0, 1], vec![2, 3]], "no empty page at the end");
        assert_eq!(walk(1000, 0), [Vec::<u64>::new()]);
    }

    #[test]
    fn a_size_out_of_range_and_a_token_of_another_query_are_refused() {
        let (_, app) = app();
        for size in [0, -1, 1001, i64::MAX] {
            assert!(matches!(Page::parse(&app, Some(size), None, &"q"), Err(Problem::Invalid(_))), "{size}");
        }
        let page = Page::parse(&app, Some(1), None, &"q").unwrap();
        let token = page.cut(vec![1, 2], position).1.unwrap();
        assert!(Page::parse(&app, Some(7), Some(&token), &"q").is_ok());
        assert!(Page::parse(&app, Some(1), Some(&token), &"other").is_err());
        for nonsense in ["x", "!!", "e30", "eyJhIjoxfQ"] {
            assert!(Page::parse(&app, None, Some(nonsense), &"q").is_err(), "{nonsense}");
        }
        assert!(Page::parse(&app, None, Some(""), &"q").unwrap().after.is_none());
    }
    #[test]
    fn a_token_that_was_changed_or_made_up_is_refused_and_one_of_before_a_rotation_is_not() {
        let (memory, app) = app();
        let page = Page::parse(&app, Some(1), None, &"q").unwrap();
        let token = page.cut(vec![1, 2], position).1.unwrap();
        let is_good = |token: &str| Page::parse(&app, Some(1), Some(token), &"q").is_ok();
        let (content, seal) = token.split_once('.').unwrap();
        let made_up = KeySet::generate(now()).seal(PURPOSE, b"{}", now()).unwrap();
        for changed in [content, &format!("{content}A.{seal}"), &format!("{content}.A{}", &seal[1..]), &made_up] {
            assert!(!is_good(changed), "{changed}");
        }
        let mut keys = memory.cache.keys(Kind::Access).unwrap().private.clone();
        keys.keys.extend(KeySet::generate(now()).keys);
        memory.cache.set_keys(Kind::Access, Keys::new(keys));
        assert!(is_good(&token));
    }
}
