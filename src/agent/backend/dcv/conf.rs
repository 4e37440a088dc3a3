//! What the DCV server's configuration means for an agent. Pure; no text panics. What is not there has the documented
//! default.
//!
//! Source: "Configuration parameter reference" in the Amazon DCV Administrator Guide.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::agent::dcv_conf::DcvConf;
use crate::api::server::Endpoint;
use crate::api::server::Protocol;

/// Documented default of both ports.
const DEFAULT_PORT: u16 = 8443;

/// The settings that matter to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration(DcvConf);

impl Configuration {
    /// Reads the text of `dcv.conf`.
    pub fn parse(text: &str) -> Self {
        Self(DcvConf::parse(text))
    }

    fn number(&self, section: &str, key: &str) -> Option<i32> {
        self.0.text(section, key)?.parse().ok()
    }

    /// Where clients reach the server. An empty address: whichever the host has.
    ///
    /// `has_quic_by_default`: as versions since 2024.0 have it.
    pub fn endpoints(&self, has_quic_by_default: bool) -> Vec<Endpoint> {
        let path = self.0.text("connectivity", "web-url-path").filter(|path| path.starts_with('/')).unwrap_or("/");
        let has_quic = self.0.switch("connectivity", "enable-quic-frontend").unwrap_or(has_quic_by_default);
        let mut endpoints = self.listening("web", Some(path), Protocol::Http);
        if has_quic {
            endpoints.extend(self.listening("quic", None, Protocol::Quic));
        }
        endpoints
    }

    fn listening(&self, what: &str, path: Option<&str>, protocol: Protocol) -> Vec<Endpoint> {
        let port = self.number("connectivity", &format!("{what}-port"));
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(DEFAULT_PORT);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for word in self.0.list("connectivity", &format!("{what}-listen-endpoints")) {
            let Some((address, own_port)) = listen_address(word) else { continue };
            let endpoint = Endpoint {
                ip_address: if address.is_unspecified() { String::new() } else { address.to_string() },
                port: own_port.unwrap_or(port).into(),
                web_url_path: path.map(str::to_owned),
                protocol,
            };
            // 0.0.0.0 and :: are one to us; nobody else reaches loopback.
            if !address.is_loopback() && !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() {
            let web_url_path = path.map(str::to_owned);
            endpoints.push(Endpoint { ip_address: String::new(), port: port.into(), web_url_path, protocol });
        }
        endpoints
    }

    /// Most virtual sessions; -1: no limit.
    pub fn max_virtual_sessions(&self) -> i32 {
        self.limit("max-concurrent-sessions")
    }

    /// Most virtual sessions of one user; -1: no limit.
    pub fn max_sessions_per_user(&self) -> i32 {
        self.limit("max-sessions-per-user")
    }

    /// The server's 0 means that there is none.
    fn limit(&self, key: &str) -> i32 {
        self.number("session-management", key).filter(|limit| *limit > 0).unwrap_or(-1)
    }

    /// Whether virtual sessions may use the GPU for OpenGL.
    pub fn has_gl(&self) -> bool {
        self.0.text("session-management", "enable-gl-in-virtual-sessions") != Some("always-off")
    }
}

/// An address with or without a port: `ip`, `ip:port`, `[ip6]:port`.
fn listen_address(word: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(both) = word.parse::<SocketAddr>() {
        return Some((both.ip(), Some(both.port())));
    }
    let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(word);
    bare.parse().ok().map(|address| (address, None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn http(ip: &str, port: i32, path: &str) -> Endpoint {
        Endpoint { ip_address: ip.into(), port, web_url_path: Some(path.into()), protocol: Protocol::Http }
    }

    fn quic(ip: &str, port: i32) -> Endpoint {
        Endpoint { ip_address: ip.into(), port, web_url_path: None, protocol: Protocol::Quic }
    }

    #[test]
    fn without_a_word_the_documented_defaults_hold() {
        for text in ["", "#web-port=1\n[connectivity]\n", "nonsense\n[broken\nweb-port=1"] {
            let conf = Configuration::parse(text);
            assert_eq!(conf.endpoints(true), [http("", 8443, "/"), quic("", 8443)], "{text}");
            assert_eq!(conf.endpoints(false), [http("", 8443, "/")], "{text}");
            assert_eq!((conf.max_virtual_sessions(), conf.max_sessions_per_user()), (-1, -1));
            assert!(conf.has_gl());
        }
    }

    #[test]
    fn what_is_set_is_told() {
        let conf = Configuration::parse(
            "[session-management]\nmax-concurrent-sessions = 4\nmax-sessions-per-user=1\n\
             enable-gl-in-virtual-sessions='always-off'\n\
             [security]\nweb-port=1\nadministrators=[\"dcvsmagent\"]\n\
             [connectivity]\nweb-port=9443\nquic-port=9444\nenable-quic-frontend=true\nweb-url-path=\"/desk\"\n\
             [session-management/defaults]\nmax-concurrent-sessions=9\n",
        );
        assert_eq!(conf.endpoints(false), [http("", 9443, "/desk"), quic("", 9444)]);
        assert_eq!((conf.max_virtual_sessions(), conf.max_sessions_per_user()), (4, 1));
        assert!(!conf.has_gl());
    }

    #[test]
    fn addresses_that_are_listened_on_are_told_and_loopback_is_not() {
        let conf = Configuration::parse(
            "[connectivity]\nenable-quic-frontend=false\n\
             web-listen-endpoints=['0.0.0.0', '::', '192.0.2.7:9000', '[2001:db8::7]:9001', '127.0.0.1', 'odd']\n",
        );
        assert_eq!(
            conf.endpoints(true),
            [http("", 8443, "/"), http("192.0.2.7", 9000, "/"), http("2001:db8::7", 9001, "/")]
        );
    }

    #[test]
    fn what_cannot_be_used_is_as_if_it_were_not_set() {
        let conf = Configuration::parse(
            "[connectivity]\nweb-port=99999\nweb-url-path='desk'\nenable-quic-frontend=perhaps\n\
             web-listen-endpoints='0.0.0.0'\n[session-management]\nmax-concurrent-sessions=-3\n",
        );
        assert_eq!(conf.endpoints(false), [http("", 8443, "/")]);
        assert_eq!(conf.max_virtual_sessions(), -1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "(\\[[a-z/-]{0,20}\\]?|[a-z-]{0,12}=['\"\\[\\],:0-9a-z.]{0,30}|\\PC{0,20}|\n){0,20}") {
            prop_assert!(!Configuration::parse(&text).endpoints(true).is_empty());
        }
    }
}
