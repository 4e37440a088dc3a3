//! Which desktop, already on a host, a waiting session takes over instead of getting a new one.
//!
//! Pure. A session takes over the desktop its `spec.adopt` names, or an unclaimed one that was made for the very same
//! object: creating a second beside it would be wrong. Whoever may name a foreign desktop in `spec.adopt` is settled by
//! admission policy.

use std::collections::BTreeSet;
use std::collections::HashMap;

use kube::ResourceExt;

use crate::api::DcvSession;
use crate::api::server::OtherSession;
use crate::api::server::SessionOrigin;

/// The sessions without an object that servers report.
#[derive(Debug, Default)]
pub struct Others {
    /// By the name of their server; servers without any are absent.
    on_server: HashMap<String, Vec<OtherSession>>,
    /// Servers with an unclaimed session, by its id.
    unclaimed: HashMap<String, BTreeSet<String>>,
}

impl Others {
    /// Takes note of what a server reports. If that is not what it reported last: the ids of the unclaimed sessions in
    /// either report.
    pub fn set(&mut self, server: &str, list: &[OtherSession]) -> Option<BTreeSet<String>> {
        let old = self.on_server.get(server).map_or(&[][..], Vec::as_slice);
        if old == list {
            return None;
        }
        let (gone, come) = (unclaimed_ids(old), unclaimed_ids(list));
        for id in gone.difference(&come) {
            if let Some(servers) = self.unclaimed.get_mut(id) {
                servers.remove(server);
                if servers.is_empty() {
                    self.unclaimed.remove(id);
                }
            }
        }
        for id in &come {
            self.unclaimed.entry(id.clone()).or_default().insert(server.to_owned());
        }
        if list.is_empty() {
            self.on_server.remove(server);
        } else {
            self.on_server.insert(server.to_owned(), list.to_vec());
        }
        Some(gone.union(&come).cloned().collect())
    }

    fn find(&self, server: &str, id: &str) -> Option<&OtherSession> {
        self.on_server.get(server)?.iter().find(|other| other.id == id)
    }
}

fn unclaimed_ids(list: &[OtherSession]) -> BTreeSet<String> {
    list.iter().filter(|other| other.origin == SessionOrigin::Unclaimed).map(|other| other.id.clone()).collect()
}

/// A desktop to take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Name of its server.
    pub server: String,
    /// Its id there.
    pub session_id: String,
}

/// The desktop that `session` takes over; `None`: it gets a new one.
///
/// # Errors
/// Why the one it names cannot be taken over now, for people.
pub fn of(session: &DcvSession, others: &Others) -> Result<Option<Adoption>, String> {
    let Some(adopt) = &session.spec.adopt else { return Ok(unclaimed(session, others)) };
    let (server, id) = (&adopt.server_name, &adopt.session_id);
    match others.find(server, id) {
        None => Err(format!("server {server} reports no session {id} without an object")),
        Some(other) if other.owner != session.spec.owner => {
            Err(format!("session {id} on server {server} belongs to another owner"))
        }
        Some(other) if other.type_ != session.spec.type_ => {
            Err(format!("session {id} on server {server} is of type {}", other.type_.as_str()))
        }
        Some(_) => Ok(Some(Adoption { server: server.clone(), session_id: id.clone() })),
    }
}

/// What an earlier bind of this object left on a host that was given up for dead. Its id there is the object's uid.
fn unclaimed(session: &DcvSession, others: &Others) -> Option<Adoption> {
    let uid = session.uid()?;
    let is_ours = |other: &OtherSession| {
        other.origin == SessionOrigin::Unclaimed
            && other.owner == session.spec.owner
            && other.type_ == session.spec.type_
            && other.namespace == session.namespace()
    };
    let server = others.unclaimed.get(&uid)?.iter().find(|server| others.find(server, &uid).is_some_and(is_ours))?;
    Some(Adoption { server: server.clone(), session_id: uid })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn session(spec: &Value) -> DcvSession {
        let mut all = json!({"owner": "ann", "type": "VIRTUAL"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": "a", "namespace": "team", "uid": "uid-a"}, "spec": all,
        }))
        .unwrap()
    }

    fn others(list: &Value) -> Others {
        let mut others = Others::default();
        others.set("host-1", &serde_json::from_value::<Vec<OtherSession>>(list.clone()).unwrap());
        others
    }

    #[test]
    fn a_named_desktop_is_taken_over_by_its_owner_only() {
        let by_hand = others(&json!([{"id": "hand", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"}]));
        let named = |server: &str, id: &str| json!({"adopt": {"serverName": server, "sessionId": id}});
        let took = Adoption { server: "host-1".into(), session_id: "hand".into() };
        assert_eq!(of(&session(&named("host-1", "hand")), &by_hand), Ok(Some(took)));
        let cases = [
            (named("host-1", "other"), "server host-1 reports no session other without an object"),
            (named("host-2", "hand"), "server host-2 reports no session hand without an object"),
        ];
        for (spec, text) in cases {
            assert_eq!(of(&session(&spec), &by_hand), Err(text.to_owned()));
        }
        let mut bobs = session(&named("host-1", "hand"));
        bobs.spec.owner = "bob".into();
        assert_eq!(of(&bobs, &by_hand), Err("session hand on server host-1 belongs to another owner".to_owned()));
        let console = others(&json!([{"id": "hand", "owner": "ann", "type": "CONSOLE", "origin": "Manual"}]));
        let refused = of(&session(&named("host-1", "hand")), &console);
        assert_eq!(refused, Err("session hand on server host-1 is of type CONSOLE".to_owned()));
    }

    #[test]
    fn a_session_finds_back_to_the_desktop_that_was_made_for_it() {
        let left = |namespace: &str, owner: &str, origin: &str| {
            others(&json!([{
                "id": "uid-a", "owner": owner, "type": "VIRTUAL", "origin": origin, "namespace": namespace, "sessionName": "a",
            }]))
        };
        let waiting = session(&json!({}));
        let took = Adoption { server: "host-1".into(), session_id: "uid-a".into() };
        assert_eq!(of(&waiting, &left("team", "ann", "Unclaimed")), Ok(Some(took)));
        assert_eq!(of(&waiting, &left("other", "ann", "Unclaimed")), Ok(None));
        assert_eq!(of(&waiting, &left("team", "bob", "Unclaimed")), Ok(None));
        assert_eq!(of(&waiting, &left("team", "ann", "Manual")), Ok(None));
    }

    #[test]
    fn a_report_says_whom_it_concerns() {
        let list = |value: &Value| serde_json::from_value::<Vec<OtherSession>>(value.clone()).unwrap();
        let left =
            |id: &str| json!({"id": id, "owner": "ann", "type": "VIRTUAL", "origin": "Unclaimed", "namespace": "team"});
        let by_hand = json!({"id": "hand", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"});
        let ids = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>());
        let mut others = Others::default();
        assert_eq!(others.set("host-1", &[]), None);
        assert_eq!(others.set("host-1", &list(&json!([left("uid-a"), by_hand]))), ids(&["uid-a"]));
        assert_eq!(others.set("host-1", &list(&json!([left("uid-a"), by_hand]))), None);
        others.set("host-2", &list(&json!([left("uid-a")])));
        assert_eq!(others.set("host-1", &list(&json!([left("uid-b")]))), ids(&["uid-a", "uid-b"]));
        let there = |others: &Others| of(&session(&json!({})), others).unwrap().map(|it| it.server);
        assert_eq!(there(&others).as_deref(), Some("host-2"));
        others.set("host-2", &[]);
        assert_eq!(there(&others), None);
    }
}
