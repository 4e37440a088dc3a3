//! The cases: every party with every verb on every object with every change that makes sense together.
//!
//! Made from lists and without a look at the rules. What Kubernetes' own roles give people on Kubernetes' own kinds in their
//! own namespace is not ours to say, so there is no case of it.

use super::Installation;
use super::actor::Actor;
use super::case::Case;
use super::case::Change;
use super::case::Object;
use super::case::Place;
use super::case::Resource;
use super::case::Target;
use super::case::Verb;

/// Those whose writes meet our policies, so they are tried as dry runs.
const WRITERS: &[Actor] = &[
    Actor::PodAgent,
    Actor::HostAgent,
    Actor::UnlimitedPodAgent,
    Actor::UnlimitedHostAgent,
    Actor::UnboundAgent,
    Actor::UnprefixedHost,
    Actor::Broker,
    Actor::Controller,
    Actor::TenantUser,
    Actor::TenantAdmin,
    Actor::ClusterAdmin,
];
/// Those whose rights are asked for.
const ASKERS: &[Actor] = &[
    Actor::PodAgent,
    Actor::HostAgent,
    Actor::Broker,
    Actor::Controller,
    Actor::TenantViewer,
    Actor::TenantUser,
    Actor::TenantAdmin,
    Actor::ClusterViewer,
    Actor::Nobody,
];
/// Those of them who write nothing, so that one question a verb is enough.
const READERS: &[Actor] = &[Actor::TenantViewer, Actor::ClusterViewer, Actor::Nobody];

const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const CHANGE: &[Verb] = &[Verb::Update, Verb::Patch];
const EVERY: &[Verb] = &[
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
];
const EVERY_BUT_CREATE: &[Verb] =
    &[Verb::Get, Verb::List, Verb::Watch, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];
const WRITE: &[Verb] = &[Verb::Create, Verb::Update, Verb::Patch, Verb::Delete, Verb::DeleteCollection];
/// Secrets of the release's namespace: ours, and one of somebody else.
const SECRETS: &[Object] = &[
    Object::AccessKeys,
    Object::ConnectionKeys,
    Object::AgentKeys,
    Object::BrokerCertificate,
    Object::BrokerAuthority,
    Object::Any,
];
/// What there is to do with a part of an object.
const PART: &[Verb] = &[Verb::Get, Verb::Update, Verb::Patch];

/// What can be done to the metadata of anything.
const METADATA: &[Change] = &[Change::Label, Change::Annotation, Change::Owner, Change::AddFinalizer];

/// All cases that an installation has, always in the same order.
pub fn cases(installation: &Installation) -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    cases.sessions();
    cases.servers();
    cases.clients();
    cases.leases();
    cases.public_keys();
    cases.controllers_own();
    cases.tokens();
    cases.definitions();
    cases.rights_on_ours();
    cases.rights_in_namespaces();
    cases.rights_in_the_cluster();
    cases.0.retain(|case| exists(*case, installation));
    cases.0
}

/// Whether the installation has what the case is about.
fn exists(case: Case, installation: &Installation) -> bool {
    let Case { actor, target: Target { resource, place, object }, .. } = case;
    let is_host = matches!(actor, Actor::HostAgent | Actor::UnlimitedHostAgent | Actor::UnprefixedHost);
    let is_certificate = matches!(object, Object::BrokerCertificate | Object::BrokerAuthority);
    // Whether these are watched is not known.
    let is_elsewhere =
        matches!(place, Place::Release | Place::Hosts) && matches!(resource, Resource::Sessions | Resource::Clients);
    (installation.has_hosts || !is_host && place != Place::Hosts)
        && (installation.keeps_certificate || !is_certificate)
        && (installation.watches_everything || !is_elsewhere)
}

struct Cases(Vec<Case>);

impl Cases {
    /// Every combination.
    fn add(&mut self, actors: &[Actor], verbs: &[Verb], targets: &[Target], changes: &[Change]) {
        for actor in actors {
            for verb in verbs {
                for target in targets {
                    let cases = changes.iter().map(|change| Case {
                        actor: *actor,
                        verb: *verb,
                        target: *target,
                        change: *change,
                    });
                    self.0.extend(cases.filter(|case| makes_sense(*case)));
                }
            }
        }
    }

    fn sessions(&mut self) {
        let bound = [Object::OnNode, Object::ClosingOnNode, Object::OnHost, Object::ClosingOnHost, Object::Waiting];
        let of = |resource| {
            let mut targets = all_of(resource, Place::Tenant, &bound);
            targets.extend(all_of(resource, Place::OtherTenant, &[Object::Waiting]));
            targets
        };
        let parts = [
            Change::Spec,
            Change::Close,
            Change::RequestId,
            Change::TakeOurFinalizer,
            Change::TakeForeignFinalizer,
            Change::Report,
        ];
        self.add(WRITERS, CHANGE, &of(Resource::Sessions), &[METADATA, &parts].concat());
        let statuses = [
            Change::Report,
            Change::Move,
            Change::Unbind,
            Change::Claim,
            Change::Attempt,
            Change::SessionId,
            Change::Retries,
            Change::Attempts,
            Change::Spec,
            Change::Label,
            Change::TakeOurFinalizer,
        ];
        self.add(WRITERS, CHANGE, &of(Resource::SessionStatus), &statuses);
        let created = [
            Change::Nothing,
            Change::RequestId,
            Change::Spec,
            Change::Close,
            Change::WrongOwner,
            Change::Adopt,
            Change::Report,
            Change::Claim,
        ];
        for place in [Place::Tenant, Place::OtherTenant] {
            let new = [target(Resource::Sessions, place, Object::New)];
            self.add(WRITERS, &[Verb::Create], &new, &[METADATA, &created].concat());
            let all = [target(Resource::Sessions, place, Object::All)];
            self.add(WRITERS, &[Verb::DeleteCollection], &all, &[Change::Nothing]);
        }
        let elsewhere = [Place::Release, Place::Hosts].map(|place| target(Resource::Sessions, place, Object::New));
        self.add(WRITERS, &[Verb::Create], &elsewhere, &[Change::Nothing]);
        self.add(WRITERS, &[Verb::Delete], &of(Resource::Sessions), &[Change::Nothing]);
    }

    fn servers(&mut self) {
        let objects = [Object::OfNode, Object::OfHost];
        let of = |resource, objects: &[Object]| all_of(resource, Place::Cluster, objects);
        let specs = [Change::Placement, Change::EndSessions, Change::AllowedNamespaces, Change::Limits];
        let parts = [METADATA, &specs, &[Change::RequestId, Change::Report]].concat();
        self.add(WRITERS, CHANGE, &of(Resource::Servers, &objects), &parts);
        let statuses = [Change::Report, Change::Placement, Change::Label];
        self.add(WRITERS, CHANGE, &of(Resource::ServerStatus, &objects), &statuses);
        let new = of(Resource::Servers, &[Object::OfNode, Object::OfHost, Object::New]);
        self.add(WRITERS, &[Verb::Create], &new, &[METADATA, &specs, &[Change::Nothing]].concat());
        self.add(WRITERS, &[Verb::Delete], &of(Resource::Servers, &objects), &[Change::Nothing]);
        let all = of(Resource::Servers, &[Object::All]);
        self.add(WRITERS, &[Verb::DeleteCollection], &all, &[Change::Nothing]);
    }

    fn clients(&mut self) {
        let actors = but(WRITERS, &[Actor::UnlimitedPodAgent, Actor::UnlimitedHostAgent]);
        let of = |resource| {
            let mut targets = all_of(resource, Place::Tenant, &[Object::Plain, Object::Everywhere, Object::Manager]);
            targets.extend(all_of(resource, Place::OtherTenant, &[Object::Plain]));
            targets
        };
        let specs = [Change::Spec, Change::Credential, Change::AllNamespaces, Change::ManageServers];
        self.add(&actors, CHANGE, &of(Resource::Clients), &[METADATA, &specs, &[Change::Report]].concat());
        self.add(&actors, CHANGE, &of(Resource::ClientStatus), &[Change::Report, Change::Spec]);
        self.add(&actors, &[Verb::Delete], &of(Resource::Clients), &[Change::Nothing]);
        for place in [Place::Tenant, Place::OtherTenant] {
            let new = [target(Resource::Clients, place, Object::New)];
            self.add(&actors, &[Verb::Create], &new, &[METADATA, &specs, &[Change::Nothing]].concat());
            let all = [target(Resource::Clients, place, Object::All)];
            self.add(&actors, &[Verb::DeleteCollection], &all, &[Change::Nothing]);
        }
    }

    fn leases(&mut self) {
        let of = |place, objects: &[Object]| all_of(Resource::Leases, place, objects);
        let stored = of(Place::Release, &[Object::OfNode, Object::OfHost, Object::Leader]);
        let agents = but(WRITERS, &[Actor::TenantUser, Actor::TenantAdmin]);
        self.add(WRITERS, CHANGE, &stored, &[Change::Renew, Change::Label]);
        self.add(WRITERS, &[Verb::Delete], &stored, &[Change::Nothing]);
        self.add(WRITERS, &[Verb::DeleteCollection], &of(Place::Release, &[Object::All]), &[Change::Nothing]);
        let new = of(Place::Release, &[Object::OfNode, Object::OfHost, Object::Leader, Object::New]);
        self.add(WRITERS, &[Verb::Create], &new, &[Change::Renew]);
        let elsewhere = of(Place::Tenant, &[Object::OfNode, Object::OfHost]);
        self.add(&agents, &[Verb::Create], &elsewhere, &[Change::Renew]);
        self.add(&[Actor::LeaderNodeAgent], &[Verb::Create], &of(Place::Release, &[Object::Leader]), &[Change::Renew]);
        self.add(&[Actor::LeaderNodeAgent], CHANGE, &of(Place::Release, &[Object::Leader]), &[Change::Renew]);
    }

    fn public_keys(&mut self) {
        let keys = [target(Resource::ConfigMaps, Place::Release, Object::PublicKeys)];
        self.add(WRITERS, &[Verb::Create], &keys, &[Change::Data]);
        let changes = [METADATA, &[Change::Data, Change::RenewKeys]].concat();
        self.add(&but(WRITERS, &[Actor::UnlimitedPodAgent, Actor::UnlimitedHostAgent]), CHANGE, &keys, &changes);
    }

    /// What the controller makes in its namespace.
    fn controllers_own(&mut self) {
        let secrets = all_of(Resource::Secrets, Place::Release, SECRETS);
        self.add(&[Actor::Controller], &[Verb::Create], &secrets, &[Change::Nothing, Change::AccountToken]);
        let maps = [target(Resource::ConfigMaps, Place::Release, Object::Any)];
        self.add(&[Actor::Controller], &[Verb::Create], &maps, &[Change::Nothing]);
    }

    fn tokens(&mut self) {
        let actors = but(WRITERS, &[Actor::UnlimitedPodAgent, Actor::ClusterAdmin]);
        let accounts = all_of(Resource::Tokens, Place::Hosts, &[Object::OfNode, Object::OfHost, Object::OfOtherHost]);
        let changes = [Change::Hour, Change::TwoDays, Change::Unbound, Change::BoundToAnother];
        self.add(&actors, &[Verb::Create], &accounts, &changes);
    }

    fn definitions(&mut self) {
        let objects = [Object::SessionDefinition, Object::ServerDefinition, Object::ClientDefinition];
        let definitions = all_of(Resource::Definitions, Place::Cluster, &objects);
        let verbs = [Verb::Delete, Verb::DeleteCollection];
        self.add(&[Actor::ClusterAdmin], &verbs, &definitions, &[Change::Nothing]);
        self.ask(ASKERS, EVERY, &definitions);
    }

    /// Questions about rights, without a change.
    fn ask(&mut self, actors: &[Actor], verbs: &[Verb], targets: &[Target]) {
        self.add(actors, verbs, targets, &[Change::Nothing]);
    }

    fn rights_on_ours(&mut self) {
        let kinds = [
            (Resource::Sessions, Resource::SessionStatus, Resource::SessionFinalizers),
            (Resource::Servers, Resource::ServerStatus, Resource::ServerFinalizers),
            (Resource::Clients, Resource::ClientStatus, Resource::ClientFinalizers),
        ];
        let everywhere = [Place::Cluster, Place::Tenant, Place::OtherTenant, Place::Release, Place::Hosts];
        for (kind, status, finalizers) in kinds {
            let places: &[Place] = if kind.is_namespaced() { &everywhere } else { &[Place::Cluster] };
            for place in places {
                // Across namespaces things are listed, not read by name.
                let verbs = if *place == Place::Cluster && kind.is_namespaced() { &READ[1..] } else { READ };
                self.ask(ASKERS, verbs, &[target(kind, *place, Object::Any)]);
                self.ask(READERS, WRITE, &[target(kind, *place, Object::Any)]);
                self.ask(READERS, CHANGE, &[target(status, *place, Object::Any)]);
                self.ask(ASKERS, &[Verb::Get], &[target(status, *place, Object::Any)]);
                self.ask(ASKERS, CHANGE, &[target(finalizers, *place, Object::Any)]);
            }
        }
        self.ask(ASKERS, &[Verb::Adopt], &[target(Resource::Servers, Place::Cluster, Object::Any)]);
        for place in [Place::Cluster, Place::Tenant] {
            let clients = [target(Resource::Clients, place, Object::Any)];
            self.ask(ASKERS, &[Verb::AllNamespaces, Verb::ManageServers], &clients);
        }
    }

    fn rights_in_namespaces(&mut self) {
        self.ask_in(EVERY_BUT_CREATE, &all_of(Resource::Secrets, Place::Release, SECRETS));
        let new = [target(Resource::Secrets, Place::Release, Object::Any)];
        self.ask(&but(ASKERS, &[Actor::Controller]), &[Verb::Create], &new);
        self.ask_in(EVERY, &all_of(Resource::Secrets, Place::Hosts, &[Object::OfHost, Object::OfOtherHost]));
        let maps = all_of(Resource::ConfigMaps, Place::Release, &[Object::PublicKeys, Object::Any]);
        self.ask_in(&[Verb::Get, Verb::List, Verb::Watch, Verb::Delete, Verb::DeleteCollection], &maps);
        self.ask_in(CHANGE, &maps[1..]);
        let leases = all_of(Resource::Leases, Place::Release, &[Object::OfNode, Object::OfHost, Object::Leader]);
        self.ask_in(READ, &leases);
        let accounts = [(Place::Release, Object::ControllerAccount), (Place::Hosts, Object::OfHost)];
        for (place, object) in accounts {
            self.ask_in(EVERY, &[target(Resource::ServiceAccounts, place, object)]);
            self.ask_in(&[Verb::Impersonate], &[target(Resource::ServiceAccounts, place, object)]);
        }
        self.ask_in(&[Verb::Create], &[target(Resource::Tokens, Place::Release, Object::ControllerAccount)]);
        let connected = [Verb::Get, Verb::Create];
        for place in [Place::Release, Place::Hosts, Place::Tenant, Place::OtherTenant] {
            let mut whole = vec![Resource::Pods, Resource::DaemonSets, Resource::Events, Resource::OldEvents];
            whole.extend([Resource::Roles, Resource::RoleBindings]);
            if matches!(place, Place::Tenant | Place::OtherTenant) {
                whole.extend([Resource::Secrets, Resource::ConfigMaps, Resource::ServiceAccounts, Resource::Leases]);
                self.ask_in(&[Verb::Create], &[target(Resource::Tokens, place, Object::Any)]);
            }
            for resource in whole {
                self.ask_in(EVERY, &[target(resource, place, Object::Any)]);
            }
            for resource in [Resource::PodExec, Resource::PodAttach, Resource::PodPortForward] {
                self.ask_in(&connected, &[target(resource, place, Object::Any)]);
            }
            self.ask_in(&[Verb::Get], &[target(Resource::PodLog, place, Object::Any)]);
            for resource in [Resource::PodStatus, Resource::PodEphemeralContainers] {
                self.ask_in(PART, &[target(resource, place, Object::Any)]);
            }
        }
    }

    /// Rights on Kubernetes' own kinds.
    fn ask_in(&mut self, verbs: &[Verb], targets: &[Target]) {
        for verb in verbs {
            for target in targets {
                let ours_to_say = |actor: &&Actor| match actor {
                    Actor::TenantViewer | Actor::TenantUser | Actor::TenantAdmin => target.place != Place::Tenant,
                    // Its role reads most of what there is, but nothing that lets anybody in.
                    Actor::ClusterViewer => {
                        !READ.contains(verb)
                            || matches!(target.resource, Resource::Secrets | Resource::PodExec | Resource::NodeProxy)
                    }
                    _ => true,
                };
                let actors: Vec<_> = ASKERS.iter().filter(ours_to_say).copied().collect();
                self.ask(&actors, &[*verb], &[*target]);
            }
        }
    }

    fn rights_in_the_cluster(&mut self) {
        let of = |resource| [target(resource, Place::Cluster, Object::Any)];
        for resource in [
            Resource::Nodes,
            Resource::Namespaces,
            Resource::Policies,
            Resource::PolicyBindings,
            Resource::MutatingWebhooks,
            Resource::ClusterRoles,
            Resource::ClusterRoleBindings,
        ] {
            self.ask_in(EVERY, &of(resource));
        }
        self.ask_in(&[Verb::Get, Verb::Create], &of(Resource::NodeProxy));
        for resource in [Resource::NodeStatus, Resource::NamespaceStatus, Resource::DefinitionStatus] {
            self.ask_in(PART, &of(resource));
        }
        self.ask_in(&[Verb::Update], &of(Resource::NamespaceFinalize));
        self.ask_in(&[Verb::Bind, Verb::Escalate], &of(Resource::ClusterRoles));
        self.ask_in(&[Verb::Impersonate], &of(Resource::Users));
        self.ask_in(&[Verb::Impersonate], &of(Resource::NodeNames));
        self.ask_in(&[Verb::Impersonate], &[target(Resource::Groups, Place::Cluster, Object::Masters)]);
        for resource in [Resource::Secrets, Resource::ConfigMaps, Resource::Leases, Resource::Pods] {
            self.ask_in(&[Verb::List, Verb::Watch], &[target(resource, Place::Cluster, Object::All)]);
        }
    }
}

fn target(resource: Resource, place: Place, object: Object) -> Target {
    Target { resource, place, object }
}

fn all_of(resource: Resource, place: Place, objects: &[Object]) -> Vec<Target> {
    objects.iter().map(|object| target(resource, place, *object)).collect()
}

fn but(actors: &[Actor], without: &[Actor]) -> Vec<Actor> {
    actors.iter().filter(|actor| !without.contains(actor)).copied().collect()
}

/// Whether the change is one, and the API server can be asked for it.
fn makes_sense(case: Case) -> bool {
    let Target { object, .. } = case.target;
    match case.change {
        // Only agents have a server, and what is theirs they need not claim.
        Change::Claim => case.actor.server().is_some() && !case.is_own(),
        Change::Unbind => object != Object::Waiting,
        // The API server lets nobody add finalizers to what is being deleted.
        Change::AddFinalizer => !matches!(object, Object::ClosingOnNode | Object::ClosingOnHost),
        Change::AllNamespaces => object != Object::Everywhere,
        Change::ManageServers => object != Object::Manager,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::rules;
    use super::*;

    #[test]
    fn there_are_many_cases_and_no_two_alike() {
        let cases = cases(&Installation::default());
        assert!(cases.len() >= 500, "{}", cases.len());
        let texts: BTreeSet<_> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), cases.len());
    }

    #[test]
    fn each_actor_is_refused_something() {
        let cases = cases(&Installation::default());
        for actor in Actor::ALL {
            let refused = cases
                .iter()
                .any(|case| case.actor == actor && rules::allowing(*case, &Installation::default()).is_none());
            assert!(refused, "{actor}");
        }
    }

    #[test]
    fn every_change_that_is_refused_to_some_is_allowed_to_somebody() {
        // Else a refusal might be of the request and not of who asks.
        let cases = cases(&Installation::default());
        let never_allowed = [
            Change::AccountToken,
            Change::WrongOwner,
            Change::Claim,
            Change::TwoDays,
            Change::Unbound,
            Change::BoundToAnother,
        ];
        for case in &cases {
            let is_allowed = |other: &Case| {
                other.change == case.change && rules::allowing(*other, &Installation::default()).is_some()
            };
            assert!(never_allowed.contains(&case.change) || cases.iter().any(is_allowed), "{case}");
        }
    }
}
