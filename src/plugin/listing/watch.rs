//! A list that is followed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;

use futures::StreamExt;
use kube::Client;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;

use super::Listed;
use super::Query;
use super::as_data;
use super::cells;
use super::sheet::Sheet;
use super::typed;
use crate::cluster::Clock;
use crate::plugin::Answer;
use crate::plugin::args::ListFormat;
use crate::plugin::error::Error;
use crate::plugin::voice::Voice;

/// What stands in the column of the state when an object is gone.
const GONE: &str = "(gone)";

/// Prints the list, then what changes. Ends with `stop`, or when it may not look on.
pub(super) async fn watch<K: Listed>(
    client: &Client,
    query: &Query<'_, K>,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let mut config = watcher::Config::default();
    config.label_selector.clone_from(&query.shown.selector);
    config.field_selector = query.fields();
    let mut events = pin!(watcher(query.api(client), config).default_backoff());
    let mut stop = pin!(stop);
    let mut seen = Seen::default();
    let mut page = Page::new(query, clock);
    let mut is_cut_off = false;
    loop {
        let event = tokio::select! {
            () = &mut stop => return Err(Error::Stopped),
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                is_cut_off = false;
                let lines = seen.take(event);
                page.show(&lines, voice)?;
            }
            Some(Err(error)) => {
                let (error, verb) = cause(error)?;
                if !seen.is_complete || is_final(&error) {
                    return Err(query.refused(verb, error));
                }
                // Said once: it goes on by itself.
                if !std::mem::replace(&mut is_cut_off, true) {
                    voice.remark(&format!("cannot look on, trying again: {error}"))?;
                }
            }
            None => return Ok(Answer::default()),
        }
    }
}

/// The error of the API server, and what was tried.
fn cause(error: watcher::Error) -> Result<(kube::Error, &'static str), Error> {
    match error {
        watcher::Error::InitialListFailed(source) => Ok((source, "list")),
        watcher::Error::WatchStartFailed(source) | watcher::Error::WatchFailed(source) => Ok((source, "watch")),
        watcher::Error::WatchError(status) => Ok((kube::Error::Api(status), "watch")),
        watcher::Error::NoResourceVersion => Err(Error::NoVersion),
    }
}

fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden() || status.code == 401)
}

/// What is worth a line.
#[derive(Debug, PartialEq)]
enum Line {
    /// It is there, perhaps as it was.
    There(DynamicObject),
    /// It is gone; this is how it was last seen.
    Gone(DynamicObject),
}

/// What has been seen of a stream of events.
#[derive(Default)]
struct Seen {
    /// Whether the list came once.
    is_complete: bool,
    objects: BTreeMap<String, DynamicObject>,
    /// What comes with a new list.
    listed: BTreeMap<String, DynamicObject>,
}

impl Seen {
    fn take(&mut self, event: Event<DynamicObject>) -> Vec<Line> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(key(&object), object);
                Vec::new()
            }
            Event::InitDone => self.compare(),
            Event::Apply(object) => {
                self.objects.insert(key(&object), object.clone());
                vec![Line::There(object)]
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
                vec![Line::Gone(object)]
            }
        }
    }

    /// What a new list tells that was not known.
    fn compare(&mut self) -> Vec<Line> {
        self.is_complete = true;
        let before = std::mem::replace(&mut self.objects, std::mem::take(&mut self.listed));
        let gone = before.iter().filter(|(key, _)| !self.objects.contains_key(*key));
        let gone = gone.map(|(_, object)| Line::Gone(object.clone()));
        let is_new = |key: &String, object: &DynamicObject| {
            before.get(key).is_none_or(|old| old.resource_version() != object.resource_version())
        };
        let there = self.objects.iter().filter(|(key, object)| is_new(key, object));
        gone.chain(there.map(|(_, object)| Line::There(object.clone()))).collect()
    }
}

/// In the order of lists; the same name later is another object.
fn key(object: &DynamicObject) -> String {
    let [namespace, name, uid] = [object.namespace(), object.metadata.name.clone(), object.uid()];
    [namespace.unwrap_or_default(), name.unwrap_or_default(), uid.unwrap_or_default()].join("/")
}

/// What has been shown.
struct Page<'q, 'a, K> {
    query: &'q Query<'a, K>,
    clock: Clock,
    sheet: Sheet,
    /// The cells of what is shown.
    rows: BTreeMap<String, Vec<String>>,
    has_documents: bool,
}

impl<'q, 'a, K: Listed> Page<'q, 'a, K> {
    fn new(query: &'q Query<'a, K>, clock: Clock) -> Self {
        let sheet = Sheet::new(K::COLUMNS, query.shown, query.with_namespace);
        Self { query, clock, sheet, rows: BTreeMap::new(), has_documents: false }
    }

    fn show(&mut self, lines: &[Line], voice: &mut Voice<'_>) -> Result<(), Error> {
        match self.query.shown.output {
            Some(format @ (ListFormat::Json | ListFormat::Yaml | ListFormat::Name)) => {
                lines.iter().try_for_each(|line| self.show_data(line, format, voice))
            }
            Some(ListFormat::Wide) | None => {
                let rows: Vec<_> = lines.iter().filter_map(|line| self.row(line)).collect();
                if rows.is_empty() { Ok(()) } else { voice.print(&self.sheet.block(&rows)) }
            }
        }
    }

    /// As kubectl does: documents one after the other, and what is gone as it was.
    fn show_data(&mut self, line: &Line, format: ListFormat, voice: &mut Voice<'_>) -> Result<(), Error> {
        let (Line::There(object) | Line::Gone(object)) = line;
        if !self.query.has(object) {
            return Ok(());
        }
        let object = typed::<K>(object.clone());
        let text = as_data::<K>(&object, format)?;
        let is_next = std::mem::replace(&mut self.has_documents, true);
        if is_next && format == ListFormat::Yaml { voice.print(&format!("---\n{text}")) } else { voice.print(&text) }
    }

    /// The row of a line, if it says something new. What is no longer one of those asked for is shown once more.
    fn row<'l>(&mut self, line: &'l Line) -> Option<(&'l DynamicObject, Vec<String>)> {
        let (Line::There(object) | Line::Gone(object)) = line;
        let mut cells = cells::<K>(object, (self.clock)());
        let before = self.rows.remove(&key(object));
        let is_wanted = self.query.has(object);
        if let Line::Gone(_) = line {
            GONE.clone_into(&mut cells[K::STATE]);
            return (is_wanted || before.is_some()).then_some((object, cells));
        }
        if is_wanted {
            self.rows.insert(key(object), cells.clone());
        }
        let is_news = before.as_ref().is_none_or(|before| !self.sheet.is_same(before, &cells));
        (is_news && (is_wanted || before.is_some())).then_some((object, cells))
    }
}
