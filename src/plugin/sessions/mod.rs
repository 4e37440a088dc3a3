//! `kubectl dcv sessions` and `close-session`: what sessions there are, one of them whole, and the end of one.

mod close;
mod details;

use std::future::Future;

use clap::Args as ClapArgs;
use clap::ValueEnum;
use jiff::Timestamp;
use kube::Client;
use kube::ResourceExt;

use super::Answer;
use super::age;
use super::args::ListFormat;
use super::error::Error;
use super::listing;
use super::listing::Column;
use super::listing::Listed;
use super::listing::Query;
use super::listing::Shown;
use super::near;
use super::voice::Voice;
use crate::api::DcvSession;
use crate::api::session::SessionState;
use crate::cluster::Clock;

pub(super) use close::Closing;
pub(super) use close::close;

/// What the help of `sessions` says at the end.
pub(super) const HELP: &str = "\
STATE is what clients of the REST API are told: DELETING from the moment somebody asked for the end. It takes the right to \
list dcvsessions in the namespace, with -A in all of them, and with -w to watch them too.

With a name it tells all there is to say of one session; kubectl dcv explain says why it waits and what would help.

Exit code: 0 done; 1 it failed; 130 interrupted, as -w always ends.

Examples:
  kubectl dcv sessions -n team-a
  kubectl dcv sessions -A --owner ann --state READY,UNKNOWN
  kubectl dcv sessions -w
  kubectl dcv sessions desk -o yaml";

/// Which sessions, and how they are shown.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(super) struct Sessions {
    /// Name of one DcvSession, to tell everything of
    #[arg(value_name = "SESSION", conflicts_with_all = ["all_namespaces", "selector", "field_selector", "owner", "state"])]
    pub session: Option<String>,
    /// Of every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only those of this owner
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Only those in one of these states
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', value_name = "STATES")]
    pub state: Vec<State>,
    #[command(flatten)]
    pub shown: Shown,
}

/// The documented states, as words of the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
#[value(rename_all = "UPPER")]
pub(super) enum State {
    Creating,
    Ready,
    Deleting,
    Deleted,
    Unknown,
}

impl State {
    fn is(self, state: SessionState) -> bool {
        let same = match self {
            Self::Creating => SessionState::Creating,
            Self::Ready => SessionState::Ready,
            Self::Deleting => SessionState::Deleting,
            Self::Deleted => SessionState::Deleted,
            Self::Unknown => SessionState::Unknown,
        };
        same == state
    }
}

impl Listed for DcvSession {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("STATE"),
        Column::new("OWNER"),
        Column::new("SERVER"),
        Column::new("CLIENTS"),
        Column::clock("AGE"),
        Column::wide("TYPE"),
        Column::wide("ADDRESS"),
        Column::wide("ID"),
        Column::new("REASON"),
    ];
    const STATE: usize = 1;

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.as_ref();
        vec![
            self.name_any(),
            self.shown_state().as_str().to_owned(),
            self.spec.owner.clone(),
            self.server_name().unwrap_or_default().to_owned(),
            status.and_then(|status| status.num_of_connections).unwrap_or(0).to_string(),
            age::since(self.metadata.creation_timestamp.as_ref(), now),
            self.spec.type_.as_str().to_owned(),
            details::address(self).unwrap_or_default(),
            self.id().to_owned(),
            status.and_then(|status| status.state_reason.clone()).unwrap_or_default(),
        ]
    }
}

/// Shows sessions, or one of them.
pub(super) async fn show(
    client: &Client,
    namespace: &str,
    wanted: &Sessions,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let name = wanted.session.as_deref().map(near::bare);
    if let Some(name) = name
        && !wanted.shown.watch
    {
        return one(client, namespace, name, wanted.shown.output, clock).await;
    }
    let only = |session: &DcvSession| {
        wanted.state.is_empty() || wanted.state.iter().any(|state| state.is(session.shown_state()))
    };
    let query = Query {
        command: "sessions",
        namespace: (!wanted.all_namespaces).then_some(namespace),
        with_namespace: wanted.all_namespaces,
        name,
        fields: fields(wanted),
        only: &only,
        shown: &wanted.shown,
    };
    listing::list(client, &query, voice, clock, stop).await
}

/// What the API server can select by.
fn fields(wanted: &Sessions) -> Vec<String> {
    let owner = wanted.owner.as_ref().map(|owner| format!("spec.owner={}", escaped(owner)));
    // A session that is being closed has its old state in the object. And what leaves a selection while it is watched would
    // look like something that is gone.
    let state = match wanted.state.as_slice() {
        [state] if *state != State::Deleting && !wanted.shown.watch => state.to_possible_value(),
        _ => None,
    };
    owner.into_iter().chain(state.map(|state| format!("status.state={}", state.get_name()))).collect()
}

/// A value as field selectors take it.
fn escaped(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, '\\' | ',' | '=').then_some('\\').into_iter().chain([c])).collect()
}

async fn one(
    client: &Client,
    namespace: &str,
    name: &str,
    output: Option<ListFormat>,
    clock: Clock,
) -> Result<Answer, Error> {
    let session = near::session(client, namespace, name).await?;
    let Some(format) = output.filter(|format| *format != ListFormat::Wide) else {
        let talk = details::advice(&session);
        return Ok(Answer { data: details::text(&session, clock()), talk, ..Answer::default() });
    };
    let api = kube::Api::namespaced_with(client.clone(), namespace, &listing::resource::<DcvSession>());
    let data = listing::as_data::<DcvSession>(&api.get(name).await?, format)?;
    Ok(Answer { data, ..Answer::default() })
}

#[cfg(test)]
mod tests;
