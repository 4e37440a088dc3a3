//! A copy of one kind of object, fed by a watch, in which this replica's own writes show at once.
//!
//! A write is *assumed* until the watch has reached it. Nothing here talks to the cluster; the invariant: what was
//! assumed is never replaced by something older, and never outlives the watch's word that it is gone.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use kube::Resource;

/// One step of a watch.
#[derive(Debug)]
pub enum Change<K> {
    /// A new list begins; it will hold every write finished before.
    ListBegins,
    /// An object of the list.
    Listed(K),
    /// The list is complete.
    ListEnds,
    /// An object was written.
    Put(K),
    /// An object is gone.
    Gone {
        /// Its uid.
        uid: String,
        /// Resource version of its end.
        version: u64,
    },
}

/// Other ways to find the objects of a mirror.
pub trait Index<K>: Default {
    /// Adds an object.
    fn insert(&mut self, object: &Arc<K>);
    /// Takes an object out that was added in this form.
    fn remove(&mut self, object: &Arc<K>);
}

/// What we wrote and the watch has not shown yet.
struct Assumed {
    version: u64,
    list: u64,
    gone: bool,
}

/// What the last call changed in a mirror.
#[derive(Clone, Debug, PartialEq)]
pub enum Touched {
    /// The objects of these uids.
    Some(Vec<String>),
    /// Any of them.
    All,
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

/// How many uids of ended objects are remembered.
const ENDED_MAX: usize = 20_000;

/// The copy.
pub struct Mirror<K, I> {
    objects: HashMap<String, Arc<K>>,
    /// Other ways to find them.
    pub index: I,
    assumed: HashMap<String, Assumed>,
    /// The list being read.
    listing: Option<HashMap<String, Arc<K>>>,
    /// Number of the last list that began.
    list: u64,
    /// Highest version the watch has shown.
    seen: u64,
    is_filled: bool,
    touched: Touched,
    /// Uids that will never be seen again, oldest first: an unknown id among them needs no second look.
    ended: HashSet<String>,
    ended_order: VecDeque<String>,
}

impl<K, I: Default> Default for Mirror<K, I> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            index: I::default(),
            assumed: HashMap::new(),
            listing: None,
            list: 0,
            seen: 0,
            is_filled: false,
            touched: Touched::default(),
            ended: HashSet::new(),
            ended_order: VecDeque::new(),
        }
    }
}

/// The resource version as a number. They are comparable since Kubernetes 1.35, and were before in fact.
pub fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}

impl<K: Resource, I: Index<K>> Mirror<K, I> {
    /// Takes the watch's word.
    pub fn apply(&mut self, change: Change<K>) {
        self.touched = Touched::default();
        match change {
            Change::ListBegins => {
                self.list += 1;
                self.listing = Some(HashMap::new());
            }
            Change::Listed(object) => {
                if let Some(listing) = &mut self.listing {
                    listing.insert(uid(&object), Arc::new(object));
                }
            }
            Change::ListEnds => self.finish_list(),
            Change::Put(object) => self.put(object),
            Change::Gone { uid, version } => {
                self.seen = self.seen.max(version);
                self.assumed.remove(&uid);
                self.take_out(&uid);
                self.settle();
            }
        }
    }

    fn put(&mut self, object: K) {
        let (uid, version) = (uid(&object), version(&object));
        self.seen = self.seen.max(version);
        match self.assumed.get(&uid) {
            Some(assumed) if assumed.gone || version < assumed.version => {}
            _ => {
                self.assumed.remove(&uid);
                self.insert(uid, Arc::new(object));
            }
        }
        self.settle();
    }

    /// The watch shows changes in order: what it has passed without showing it no longer exists.
    fn settle(&mut self) {
        let passed: Vec<_> = self
            .assumed
            .iter()
            .filter(|(_, assumed)| !assumed.gone && assumed.version < self.seen)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in passed {
            self.assumed.remove(&uid);
            self.take_out(&uid);
        }
    }

    fn finish_list(&mut self) {
        let mut listed = self.listing.take().unwrap_or_default();
        let list = self.list;
        // A list that began after a write shows it; so does, perhaps, one that began before.
        self.assumed.retain(|uid, assumed| {
            let shown = listed.get(uid).map(|object| version(object.as_ref()));
            let is_shown = if assumed.gone { shown.is_none() } else { shown >= Some(assumed.version) };
            assumed.list == list && !is_shown
        });
        for (uid, assumed) in &self.assumed {
            if assumed.gone {
                listed.remove(uid);
            } else if let Some(object) = self.objects.get(uid) {
                listed.insert(uid.clone(), Arc::clone(object));
            }
        }
        let ended: Vec<_> = self.objects.keys().filter(|uid| !listed.contains_key(*uid)).cloned().collect();
        for uid in ended {
            self.remember_end(uid);
        }
        self.index = I::default();
        self.objects = listed;
        for object in self.objects.values() {
            self.seen = self.seen.max(version(object.as_ref()));
            self.index.insert(object);
        }
        self.is_filled = true;
        self.settle();
        self.touched = Touched::All;
    }

    /// Shows what the API server answered to a write, or to a question, until the watch has reached it.
    pub fn assume(&mut self, object: K) -> Arc<K> {
        self.touched = Touched::default();
        let (uid, version) = (uid(&object), version(&object));
        let object = Arc::new(object);
        let is_newer = self.objects.get(&uid).is_none_or(|known| self::version(known.as_ref()) < version);
        // The watch is past it: what is not in the mirror is gone.
        if is_newer && version > self.seen && !self.ended.contains(&uid) {
            self.assumed.insert(uid.clone(), Assumed { version, list: self.list, gone: false });
            self.insert(uid, Arc::clone(&object));
        }
        object
    }

    /// Shows that an object is gone, until the watch has reached it.
    pub fn assume_gone(&mut self, uid: &str) {
        self.touched = Touched::default();
        if self.objects.contains_key(uid) {
            self.assumed.insert(uid.to_owned(), Assumed { version: 0, list: self.list, gone: true });
            self.take_out(uid);
        }
    }

    fn insert(&mut self, uid: String, object: Arc<K>) {
        self.touch(&uid);
        self.ended.remove(&uid);
        if let Some(old) = self.objects.get(&uid) {
            self.index.remove(old);
        }
        self.index.insert(&object);
        self.objects.insert(uid, object);
    }

    fn take_out(&mut self, uid: &str) {
        if let Some(old) = self.objects.remove(uid) {
            self.index.remove(&old);
            self.remember_end(uid.to_owned());
            self.touch(uid);
        }
    }

    fn touch(&mut self, uid: &str) {
        if let Touched::Some(uids) = &mut self.touched {
            uids.push(uid.to_owned());
        }
    }

    /// What the last change or assumption changed.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    fn remember_end(&mut self, uid: String) {
        if self.ended.insert(uid.clone()) {
            self.ended_order.push_back(uid);
        }
        while self.ended_order.len() > ENDED_MAX {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }

    /// Remembers that no object has or will ever have this uid: whoever asks for it has it from an object that is gone.
    pub fn note_unknown(&mut self, uid: &str) {
        if !self.objects.contains_key(uid) {
            self.remember_end(uid.to_owned());
        }
    }

    /// Whether the object of this uid is known to be gone.
    pub fn has_ended(&self, uid: &str) -> bool {
        self.ended.contains(uid)
    }

    /// The object of this uid.
    pub fn get(&self, uid: &str) -> Option<&Arc<K>> {
        self.objects.get(uid)
    }

    /// All objects, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// Whether a first list is complete.
    pub fn is_filled(&self) -> bool {
        self.is_filled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::Namespace;
    use kube::ResourceExt;

    use super::*;

    #[derive(Default)]
    struct Names(BTreeSet<(String, u64)>);

    impl Index<Namespace> for Names {
        fn insert(&mut self, object: &Arc<Namespace>) {
            assert!(self.0.insert((object.name_any(), version(object.as_ref()))), "twice");
        }
        fn remove(&mut self, object: &Arc<Namespace>) {
            assert!(self.0.remove(&(object.name_any(), version(object.as_ref()))), "never added");
        }
    }

    type Tested = Mirror<Namespace, Names>;

    fn object(name: &str, version: u64) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(name.to_owned());
        object.metadata.resource_version = Some(version.to_string());
        object
    }

    fn listed(objects: &[(&str, u64)]) -> Tested {
        let mut mirror = Tested::default();
        list(&mut mirror, objects);
        mirror
    }

    fn list(mirror: &mut Tested, objects: &[(&str, u64)]) {
        mirror.apply(Change::ListBegins);
        end_list(mirror, objects);
    }

    fn end_list(mirror: &mut Tested, objects: &[(&str, u64)]) {
        for (name, version) in objects {
            mirror.apply(Change::Listed(object(name, *version)));
        }
        mirror.apply(Change::ListEnds);
    }

    fn gone(name: &str, version: u64) -> Change<Namespace> {
        Change::Gone { uid: name.to_owned(), version }
    }

    fn shown(mirror: &Tested) -> Vec<(&str, u64)> {
        mirror.index.0.iter().map(|(name, version)| (name.as_str(), *version)).collect()
    }

    #[test]
    fn a_mirror_follows_its_watch() {
        let mut mirror = Tested::default();
        assert!(!mirror.is_filled());
        list(&mut mirror, &[("a", 1), ("b", 2)]);
        assert!(mirror.is_filled());
        assert_eq!(*mirror.touched(), Touched::All);
        mirror.apply(Change::Put(object("a", 5)));
        assert_eq!(*mirror.touched(), Touched::Some(vec!["a".to_owned()]));
        mirror.apply(gone("b", 6));
        assert_eq!(*mirror.touched(), Touched::Some(vec!["b".to_owned()]));
        assert_eq!(shown(&mirror), [("a", 5)]);
        assert!(mirror.has_ended("b"));
        list(&mut mirror, &[("c", 7)]);
        assert_eq!(shown(&mirror), [("c", 7)]);
        assert!(mirror.has_ended("a"));
    }

    #[test]
    fn a_write_is_shown_at_once_and_never_by_something_older() {
        let mut mirror = listed(&[("a", 1)]);
        mirror.assume(object("a", 9));
        mirror.apply(Change::Put(object("a", 4)));
        assert_eq!(shown(&mirror), [("a", 9)]);
        mirror.apply(Change::Put(object("a", 9)));
        mirror.apply(Change::Put(object("a", 12)));
        mirror.assume(object("a", 9));
        assert_eq!(shown(&mirror), [("a", 12)]);
    }

    #[test]
    fn an_answer_that_comes_after_the_watch_has_passed_it_changes_nothing() {
        let mut mirror = listed(&[]);
        mirror.apply(Change::Put(object("a", 3)));
        mirror.apply(gone("a", 5));
        mirror.assume(object("a", 3));
        assert_eq!(shown(&mirror), []);
    }

    #[test]
    fn a_deletion_is_shown_at_once_and_outlives_late_changes() {
        let mut mirror = listed(&[("a", 1), ("b", 2)]);
        mirror.assume_gone("a");
        mirror.apply(Change::Put(object("a", 4)));
        assert_eq!(shown(&mirror), [("b", 2)]);
        mirror.apply(gone("a", 6));
        assert_eq!(shown(&mirror), [("b", 2)]);
    }

    #[test]
    fn a_list_that_began_before_a_write_does_not_undo_it() {
        let mut mirror = listed(&[("b", 2)]);
        mirror.apply(Change::ListBegins);
        mirror.assume(object("a", 9));
        mirror.assume_gone("b");
        end_list(&mut mirror, &[("b", 2)]);
        assert_eq!(shown(&mirror), [("a", 9)]);
        list(&mut mirror, &[]);
        assert_eq!(shown(&mirror), [], "a list that began after the write is right");
    }

    #[test]
    fn what_the_watch_has_passed_without_showing_is_gone() {
        let mut mirror = listed(&[]);
        mirror.apply(Change::ListBegins);
        mirror.assume(object("a", 5));
        end_list(&mut mirror, &[("c", 4)]);
        assert_eq!(shown(&mirror), [("a", 5), ("c", 4)]);
        mirror.apply(Change::Put(object("c", 8)));
        assert_eq!(shown(&mirror), [("c", 8)]);
        assert_eq!(*mirror.touched(), Touched::Some(vec!["c".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn a_write_that_a_list_has_shown_is_settled() {
        let mut mirror = listed(&[]);
        mirror.apply(Change::ListBegins);
        mirror.assume(object("a", 5));
        end_list(&mut mirror, &[("a", 5), ("c", 7)]);
        mirror.apply(Change::Put(object("c", 8)));
        assert_eq!(shown(&mirror), [("a", 5), ("c", 8)]);
    }

    #[test]
    fn an_unknown_uid_is_remembered() {
        let mut mirror = listed(&[("a", 1)]);
        mirror.note_unknown("x");
        mirror.note_unknown("a");
        assert!(mirror.has_ended("x") && !mirror.has_ended("a"));
    }
}
