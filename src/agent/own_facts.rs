//! What tasks of their own read of the host, and how it gets into what the agent tells.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Settings;
use super::check;
use super::check::Verdict;
use super::host;
use super::host::AddressError;
use super::host::slow::Slow;
use super::server::Facts;
use super::tags;
use super::tags::Tags;
use crate::api::DcvServer;

/// Longest time the tags are waited for at the start: without them, sessions would be placed wrongly.
const TAGS_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known by now.
#[derive(Clone)]
pub struct OwnFacts {
    slow: watch::Receiver<Slow>,
    tags: Option<watch::Receiver<Tags>>,
    verdict: Option<watch::Receiver<Option<Verdict>>>,
    /// The tags that the server had when they could not be read yet.
    told_tags: Option<BTreeMap<String, String>>,
}

/// The address that clients and brokers are told.
///
/// # Errors
/// When the preferred interface has none.
pub fn own_address(settings: &Settings) -> Result<IpAddr, AddressError> {
    let listen = settings.https_address.ip();
    let preferred = settings.host.preferred_network_interface.as_deref();
    match settings.advertise_address {
        Some(address) => Ok(address),
        None if preferred.is_none() && !listen.is_unspecified() => Ok(listen),
        None => host::own_address(preferred),
    }
}

impl OwnFacts {
    /// Starts to read while `tasks` lives. Returns once the tags were read, or cannot be for long.
    pub async fn follow(settings: &Settings, address: IpAddr, tasks: &mut JoinSet<()>) -> Self {
        let slow = match &settings.check {
            Some(_) => host::slow::follow(&settings.host, address, settings.update_interval, tasks),
            None => watch::channel(Slow::default()).1, // a made-up host's facts are its backend's
        };
        let verdict = settings.check.clone().map(|source| check::follow(source, tasks));
        let mut tags = settings.tags_folder.clone().map(|folder| tags::follow(folder, tasks));
        if let Some(tags) = &mut tags {
            let _ = tokio::time::timeout(TAGS_TIMEOUT, tags.changed()).await;
        }
        Self { slow, tags, verdict, told_tags: None }
    }

    /// Returns when something is known that was not.
    pub async fn changed(&mut self) {
        async fn of<T>(told: Option<&mut watch::Receiver<T>>) {
            let is_over = match told {
                Some(told) => told.changed().await.is_err(),
                None => true,
            };
            if is_over {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = of(Some(&mut self.slow)) => {}
            () = of(self.tags.as_mut()) => {}
            () = of(self.verdict.as_mut()) => {}
        }
    }

    /// Takes the tags in. While the files were never good since the start, those stay that the server was told with.
    pub fn take_tags(&mut self, server: &DcvServer, facts: &mut Facts) {
        let Some(tags) = &self.tags else { return };
        let tags = tags.borrow();
        facts.has_tag_files = true;
        facts.tags_fault.clone_from(&tags.fault);
        facts.tags = match &tags.good {
            Some(good) => good.clone(),
            None => self.told_tags.get_or_insert_with(|| told_tags(server)).clone(),
        };
    }

    /// Puts the other facts beside those of the host. They say nothing of a host that is made up.
    pub fn add_to(&self, server: &DcvServer, facts: &mut Facts) {
        if facts.description.host.is_some() {
            return;
        }
        let told = server.status.as_ref();
        let slow = self.slow.borrow();
        slow.add_to(&mut facts.host, told.and_then(|status| status.host.as_ref()));
        let told_name = || told.map(|status| status.default_dns_name.clone()).filter(|name| !name.is_empty());
        facts.dns_name = slow.dns_name.clone().unwrap_or_else(told_name);
        facts.set_up = self.verdict.as_ref().and_then(|verdict| verdict.borrow().clone());
    }
}

/// The tags that `server` was told with, without the built-in ones.
fn told_tags(server: &DcvServer) -> BTreeMap<String, String> {
    let told = server.status.iter().flat_map(|status| &status.tags);
    let own = told.filter(|(key, _)| !key.starts_with(tags::BUILT_IN));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(tags: Tags) -> (watch::Sender<Tags>, OwnFacts) {
        let (sender, receiver) = watch::channel(tags);
        let own =
            OwnFacts { slow: watch::channel(Slow::default()).1, tags: Some(receiver), verdict: None, told_tags: None };
        (sender, own)
    }

    #[test]
    fn tags_that_were_never_good_stay_as_they_were_told() {
        let server: DcvServer = serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": "host-1"}, "spec": {},
            "status": {"tags": {"pool": "office", "dcv:os-family": "linux"}},
        }))
        .unwrap();
        let (sender, mut own) = known(Tags { good: None, fault: Some("a.toml is broken".into()) });
        let mut facts = Facts::default();
        own.take_tags(&server, &mut facts);
        assert_eq!(facts.tags, BTreeMap::from([("pool".to_owned(), "office".to_owned())]));
        assert_eq!(facts.tags_fault.as_deref(), Some("a.toml is broken"));

        sender.send_replace(Tags { good: Some(BTreeMap::new()), fault: None });
        own.take_tags(&server, &mut facts);
        assert_eq!((facts.tags.len(), facts.tags_fault.clone(), facts.has_tag_files), (0, None, true));
    }

    #[test]
    fn facts_of_this_machine_are_not_told_of_a_made_up_host() {
        let (_sender, mut own) = known(Tags::default());
        own.slow = watch::channel(Slow { dns_name: Some(Some("node7.example".into())), ..Slow::default() }).1;
        let server = DcvServer::default();
        let mut facts = Facts::default();
        own.add_to(&server, &mut facts);
        assert_eq!(facts.dns_name.as_deref(), Some("node7.example"));
        let mut made_up = Facts::default();
        made_up.description.host = Some(crate::api::server::Host::default());
        own.add_to(&server, &mut made_up);
        assert_eq!(made_up.dns_name, None);
    }

    #[tokio::test]
    async fn a_change_wakes_and_nothing_known_waits() {
        let (sender, mut own) = known(Tags::default());
        let none = tokio::time::timeout(Duration::from_millis(10), own.changed()).await;
        assert!(none.is_err());
        sender.send_replace(Tags::default());
        tokio::time::timeout(Duration::from_secs(5), own.changed()).await.unwrap();
    }
}
