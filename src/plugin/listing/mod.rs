//! Objects as lists: chosen, shown and followed with `kubectl get`'s own flags, in its own shapes.
//!
//! As data an object is printed as the API server has it, fields that this version does not know included. Tables have
//! columns of ours. Nothing is written.

mod sheet;
mod watch;

use std::fmt::Debug;
use std::future::Future;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt;
use kube::api::ApiResource;
use kube::api::DynamicObject;
use kube::api::ListParams;
use kube::core::TypeMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::args::ListFormat;
use super::error::Error;
use super::error::needs;
use super::print;
use super::voice::Voice;
use crate::cluster::Clock;
use sheet::Sheet;

/// How many objects are asked for at once, as kubectl does.
const CHUNK: u32 = 500;

/// Which objects of a kind, and how they are shown.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(super) struct Shown {
    /// Only those with these labels, such as team=a
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only those with these fields, such as metadata.name=a
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,
    /// Print as this instead of a table; wide: with more columns
    #[arg(short, long, value_enum)]
    pub output: Option<ListFormat>,
    /// Go on with what changes, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// No line of titles
    #[arg(long)]
    pub no_headers: bool,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    is_wide: bool,
    is_clock: bool,
}

impl Column {
    /// One that is always shown.
    pub(super) const fn new(title: &'static str) -> Self {
        Self { title, is_wide: false, is_clock: false }
    }

    /// One that only the wide view has.
    pub(super) const fn wide(title: &'static str) -> Self {
        Self { title, is_wide: true, is_clock: false }
    }

    /// One that changes as time goes by, which is no reason to show the object again.
    pub(super) const fn clock(title: &'static str) -> Self {
        Self { title, is_wide: false, is_clock: true }
    }
}

/// A kind that is shown as a list.
pub(super) trait Listed: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned {
    /// The columns; the first is the name.
    const COLUMNS: &'static [Column];
    /// Which of them says what the object is doing: of one that is gone it says so.
    const STATE: usize;

    /// A cell for each column.
    fn cells(&self, now: Timestamp) -> Vec<String>;
}

/// What is asked for.
pub(super) struct Query<'a, K> {
    /// The command, for errors.
    pub command: &'static str,
    /// Namespace; `None`: all, or the kind has none.
    pub namespace: Option<&'a str>,
    /// Whether the table tells the namespace.
    pub with_namespace: bool,
    /// A single object; `None`: all.
    pub name: Option<&'a str>,
    /// Further fields that the API server selects by.
    pub fields: Vec<String>,
    /// What we select by ourselves.
    pub only: &'a dyn Fn(&K) -> bool,
    pub shown: &'a Shown,
}

impl<K: Listed> Query<'_, K> {
    fn api(&self, client: &Client) -> Api<DynamicObject> {
        let resource = resource::<K>();
        match self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }

    fn fields(&self) -> Option<String> {
        let name = self.name.map(|name| format!("metadata.name={name}"));
        let parts: Vec<_> = self.shown.field_selector.iter().chain(&self.fields).cloned().chain(name).collect();
        Some(parts.join(",")).filter(|fields| !fields.is_empty())
    }

    /// Whether the object is one of those; one that cannot be read is.
    fn has(&self, object: &DynamicObject) -> bool {
        read::<K>(object).is_none_or(|object| (self.only)(&object))
    }

    /// The error of a call that takes the right `verb`.
    fn refused(&self, verb: &str, error: kube::Error) -> Error {
        let place = match self.namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None if self.with_namespace => " in all namespaces".to_owned(),
            None => String::new(),
        };
        needs(self.command, format!("{verb} {}{place}", K::plural(&())), error)
    }
}

/// Prints what there is, and with `--watch` what becomes of it until `stop`.
pub(super) async fn list<K: Listed>(
    client: &Client,
    query: &Query<'_, K>,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    if query.shown.watch {
        return watch::watch(client, query, voice, clock, stop).await;
    }
    let found = tokio::select! {
        () = stop => return Err(Error::Interrupted),
        found = fetch(client, query) => found?,
    };
    let found: Vec<_> = found.into_iter().filter(|object| query.has(object)).collect();
    let data = match query.shown.output {
        Some(ListFormat::Json) => print::json(&as_list(&found)?)?,
        Some(ListFormat::Yaml) => print::yaml(&as_list(&found)?)?,
        Some(ListFormat::Name) => found.iter().map(|object| qualified::<K>(&object.name_any()) + "\n").collect(),
        Some(ListFormat::Wide) | None if found.is_empty() => {
            let place = query.namespace.map(|namespace| format!(" in {namespace} namespace")).unwrap_or_default();
            return Ok(Answer { talk: format!("No resources found{place}.\n"), ..Answer::default() });
        }
        Some(ListFormat::Wide) | None => {
            let now = clock();
            let rows = found.iter().map(|object| cells::<K>(object, now));
            let rows: Vec<_> = found.iter().zip(rows).collect();
            Sheet::new(K::COLUMNS, query.shown, query.with_namespace).block(&rows)
        }
    };
    Ok(Answer { data, ..Answer::default() })
}

/// An object as data, without the record of who wrote what, as kubectl shows it.
pub(super) fn as_data<K: Listed>(object: &DynamicObject, format: ListFormat) -> Result<String, Error> {
    match format {
        ListFormat::Json => print::json(&tidied(object)?),
        ListFormat::Yaml => print::yaml(&tidied(object)?),
        ListFormat::Name | ListFormat::Wide => Ok(qualified::<K>(&object.name_any()) + "\n"),
    }
}

/// `kind.group/name`, as `kubectl get -o name` prints it.
pub(super) fn qualified<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{}.{}/{name}", K::kind(&()).to_lowercase(), K::group(&()))
}

/// The kind as the API server knows it.
pub(super) fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

async fn fetch<K: Listed>(client: &Client, query: &Query<'_, K>) -> Result<Vec<DynamicObject>, Error> {
    let api = query.api(client);
    let mut parameters = ListParams { field_selector: query.fields(), limit: Some(CHUNK), ..ListParams::default() };
    parameters.label_selector.clone_from(&query.shown.selector);
    let mut found = Vec::new();
    loop {
        let page = api.list(&parameters).await.map_err(|error| query.refused("list", error))?;
        found.extend(page.items.into_iter().map(typed::<K>));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// In lists the kind of each object may be left out.
fn typed<K: Resource<DynamicType = ()>>(mut object: DynamicObject) -> DynamicObject {
    object.types.get_or_insert_with(TypeMeta::resource::<K>);
    object
}

fn read<K: DeserializeOwned>(object: &DynamicObject) -> Option<K> {
    serde_json::from_value(serde_json::to_value(object).ok()?).ok()
}

/// The cells of an object. Of one that this version cannot read there is the name.
fn cells<K: Listed>(object: &DynamicObject, now: Timestamp) -> Vec<String> {
    let known = read::<K>(object).map(|object| object.cells(now));
    known.unwrap_or_else(|| {
        let rest = std::iter::repeat_n("<unreadable>".to_owned(), K::COLUMNS.len() - 1);
        std::iter::once(object.name_any()).chain(rest).collect()
    })
}

/// Kubectl's own list.
fn as_list(objects: &[DynamicObject]) -> Result<Value, Error> {
    let items: Vec<_> = objects.iter().map(tidied).collect::<Result<_, _>>()?;
    Ok(json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}))
}

fn tidied(object: &DynamicObject) -> Result<Value, Error> {
    let mut value = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Ok(value)
}
