//! What the API server answered to our own writes, until the watch has caught up.
//!
//! Without it the next pass would look at the object as it was before, and write the same again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Resource;
use kube::ResourceExt;

/// Newer versions of watched objects, by a key of the caller's.
pub struct Answers<K> {
    by_key: BTreeMap<String, Answer<K>>,
}

struct Answer<K> {
    /// Versions known to be older than the answer; `None` is an object that the watch did not have.
    older: BTreeSet<Option<String>>,
    /// `None`: the object is gone.
    object: Option<Arc<K>>,
}

impl<K> Default for Answers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new() }
    }
}

impl<K: Resource> Answers<K> {
    /// Notes that the object is now as answered, and that `written` was the version the write was made from.
    pub fn put(&mut self, key: &str, written: Option<String>, object: Option<Arc<K>>) {
        let entry =
            self.by_key.entry(key.to_owned()).or_insert_with(|| Answer { older: BTreeSet::new(), object: None });
        if let Some(earlier) = &entry.object {
            entry.older.insert(earlier.resource_version());
        }
        entry.older.insert(written);
        // A version is never older than itself: a write that changed nothing answers the version it was made from.
        entry.older.remove(&object.as_ref().and_then(|object| object.resource_version()));
        entry.object = object;
    }

    /// The newer of the watch's object and the answer.
    pub fn newer(&mut self, key: &str, watched: Option<Arc<K>>) -> Option<Arc<K>> {
        let version = watched.as_ref().and_then(|object| object.resource_version());
        match self.by_key.get(key) {
            Some(answer) if answer.older.contains(&version) => answer.object.clone(),
            _ => {
                self.by_key.remove(key);
                watched
            }
        }
    }

    /// Forgets answers about other keys.
    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.by_key.retain(|key, _| is_watched(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DcvServer;

    fn version(version: &str) -> Arc<DcvServer> {
        let mut server = DcvServer::default();
        server.metadata.resource_version = Some(version.into());
        Arc::new(server)
    }

    #[test]
    fn an_answer_holds_until_the_watch_has_anything_newer() {
        let mut answers = Answers::default();
        answers.put("a", Some("5".into()), Some(version("6")));
        answers.put("a", Some("6".into()), Some(version("7")));
        assert_eq!(answers.newer("a", Some(version("5"))), Some(version("7")));
        assert_eq!(answers.newer("a", Some(version("6"))), Some(version("7")));
        assert_eq!(answers.newer("a", Some(version("8"))), Some(version("8")));
        assert_eq!(answers.newer("a", Some(version("5"))), Some(version("5")), "it is forgotten then");
    }

    #[test]
    fn an_object_known_to_be_gone_stays_gone() {
        let mut answers = Answers::<DcvServer>::default();
        answers.put("a", Some("5".into()), None);
        assert_eq!(answers.newer("a", Some(version("5"))), None);
        answers.put("b", None, Some(version("1")));
        assert_eq!(answers.newer("b", None), Some(version("1")));
    }
}
