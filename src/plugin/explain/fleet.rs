//! Servers and who is on them, as far as the person who asks may know.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ListParams;

use super::super::error::needs;
use super::Error;
use super::Subject;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::session::SessionType;
use crate::placement::Candidate;
use crate::placement::Ledger;
use crate::placement::NewServers;

/// What is said when other namespaces' sessions cannot be read.
const COUNTED: &str = "you may not list dcvsessions in all namespaces: room is counted from what servers last reported, \
                       and an owner's sessions of other namespaces are not seen";

/// An attempt, where it does not matter which.
const ATTEMPT: i32 = 1;

/// Servers, who is on them, and namespaces.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// Servers and who is on them.
    pub ledger: Ledger,
    /// Labels of each namespace that is asked about.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// What could not be read, and what that means.
    pub remarks: Vec<String>,
    taken: usize,
}

impl Fleet {
    /// Reads what concerns `subjects`. Without a right that nothing can stand in for, says which.
    pub async fn read(client: &Client, subjects: &[Subject]) -> Result<Self, Error> {
        let mut fleet = Self::default();
        let names: BTreeSet<&str> = subjects.iter().map(|subject| subject.namespace.as_str()).collect();
        for name in &names {
            let found = Api::<Namespace>::all(client.clone()).get(name).await;
            let namespace = found.map_err(|error| needs("explain", "get namespaces", error))?;
            fleet.namespaces.insert((*name).to_owned(), namespace.labels().clone());
        }
        let servers = Api::<DcvServer>::all(client.clone()).list(&ListParams::default()).await;
        let servers = servers.map_err(|error| needs("explain", "list dcvservers", error))?.items;
        for server in &servers {
            fleet.ledger.set_server(Candidate::of(server, !server.is_silent(), server.is_cordoned(), NewServers::Open));
        }
        fleet.read_sessions(client, &names, &servers).await?;
        Ok(fleet)
    }

    /// Puts sessions on their servers: all there are, else those that may be read and as many more as servers report.
    async fn read_sessions(
        &mut self,
        client: &Client,
        namespaces: &BTreeSet<&str>,
        servers: &[DcvServer],
    ) -> Result<(), Error> {
        match Api::<DcvSession>::all(client.clone()).list(&ListParams::default()).await {
            Ok(sessions) => {
                self.see(&sessions.items);
                return Ok(());
            }
            Err(error) if is_forbidden(&error) => self.remarks.push(COUNTED.to_owned()),
            Err(error) => return Err(error.into()),
        }
        for namespace in namespaces {
            match Api::<DcvSession>::namespaced(client.clone(), namespace).list(&ListParams::default()).await {
                Ok(sessions) => self.see(&sessions.items),
                Err(error) if is_forbidden(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for server in servers {
            self.top_up(server);
        }
        Ok(())
    }

    fn see(&mut self, sessions: &[DcvSession]) {
        for session in sessions {
            self.ledger.see(session);
        }
    }

    /// Adds sessions of nobody until there are as many as the server reports.
    fn top_up(&mut self, server: &DcvServer) {
        let name = server.name_any();
        let Some(status) = &server.status else { return };
        let seen = self.ledger.occupancy(&name);
        for (type_, reported, seen) in [
            (SessionType::Virtual, status.virtual_session_count, seen.virtual_),
            (SessionType::Console, status.console_session_count, seen.console),
        ] {
            // Those without an object are counted by the server's facts.
            let others = status.other_sessions.iter().filter(|other| other.type_ == type_).count();
            let known = others + usize::try_from(seen).unwrap_or(usize::MAX);
            let reported = usize::try_from(reported.unwrap_or(0)).unwrap_or(0);
            for number in known..reported {
                self.ledger.reserve(&format!("{name} {type_:?} {number}"), ATTEMPT, &name, "", type_);
            }
        }
    }

    /// Gives `server` to a session, so that the next one finds it there.
    pub fn take(&mut self, server: &str, session: &DcvSession) {
        self.taken += 1;
        let key = format!("manifest {}", self.taken);
        self.ledger.reserve(&key, ATTEMPT, server, &session.spec.owner, session.spec.type_);
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}
