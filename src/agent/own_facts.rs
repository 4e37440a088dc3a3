//! What tasks of their own read of the host, and how it gets into what the agent tells.

use std::net::IpAddr;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Settings;
use super::host;
use super::host::AddressError;
use super::host::slow::Slow;
use super::server::Facts;
use crate::api::DcvServer;

/// What is known by now.
#[derive(Clone)]
pub struct OwnFacts {
    slow: watch::Receiver<Slow>,
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
    /// Starts to read while `tasks` lives.
    pub fn follow(settings: &Settings, address: IpAddr, tasks: &mut JoinSet<()>) -> Self {
        let slow = match &settings.tags_folder {
            Some(_) => host::slow::follow(&settings.host, address, settings.update_interval, tasks),
            None => watch::channel(Slow::default()).1, // a made-up host's facts are its backend's
        };
        Self { slow }
    }

    /// Returns when something is known that was not.
    pub async fn changed(&mut self) {
        if self.slow.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Puts them beside those of the host. They say nothing of a host that is made up.
    pub fn add_to(&self, server: &DcvServer, facts: &mut Facts) {
        if facts.description.host.is_some() {
            return;
        }
        let told = server.status.as_ref();
        let slow = self.slow.borrow();
        slow.add_to(&mut facts.host, told.and_then(|status| status.host.as_ref()));
        let told_name = || told.map(|status| status.default_dns_name.clone()).filter(|name| !name.is_empty());
        facts.dns_name = slow.dns_name.clone().unwrap_or_else(told_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_this_machine_are_not_told_of_a_made_up_host() {
        let slow = Slow { dns_name: Some(Some("node7.example".into())), ..Slow::default() };
        let own = OwnFacts { slow: watch::channel(slow).1 };
        let server = DcvServer::default();
        let mut facts = Facts::default();
        own.add_to(&server, &mut facts);
        assert_eq!(facts.dns_name.as_deref(), Some("node7.example"));
        let mut made_up = Facts::default();
        made_up.description.host = Some(crate::api::server::Host::default());
        own.add_to(&server, &mut made_up);
        assert_eq!(made_up.dns_name, None);
    }
}
