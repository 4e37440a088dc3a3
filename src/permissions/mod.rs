//! The permissions file: who may do what in a session.
//!
//! Parses the documented text and answers for one person. Does no I/O: whether a person is in a group of the operating
//! system is asked of the caller. No text panics, and work is linear in its length.
//!
//! A text stands alone: what it does not allow is not allowed, to the owner neither. An empty one allows nothing to anyone.
//! Source: "Configuring Amazon DCV authorization" in the DCV Administrator Guide.

mod features;
mod parse;

pub use features::Features;
pub use parse::ParseError;

/// What a permissions file says, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Groups of the file, each after those it contains.
    groups: Vec<Group>,
    /// The rules, in the order of the file.
    rules: Vec<Rule>,
}

/// A group of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    members: Vec<Actor>,
}

/// Whom a rule or a group names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Actor {
    User(String),
    /// Index of a group of the file.
    Group(usize),
    OsGroup(String),
    Owner,
    Any,
}

/// One line of the permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    actor: Actor,
    verdict: Verdict,
    features: Features,
}

/// What a rule does with its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// A later line may allow again.
    Disallow,
    /// No other line may allow.
    Deny,
}

impl Default for Permissions {
    /// What holds without a file: `%owner% allow builtin`.
    fn default() -> Self {
        let rule = Rule { actor: Actor::Owner, verdict: Verdict::Allow, features: Features::BUILTIN };
        Self { groups: Vec::new(), rules: vec![rule] }
    }
}

impl Permissions {
    /// Reads `text`; absent: only the owner, with every feature.
    ///
    /// # Errors
    /// The first line that cannot be understood.
    pub fn parse(text: Option<&str>) -> Result<Self, ParseError> {
        text.map_or_else(|| Ok(Self::default()), parse::parse)
    }

    /// The groups of the operating system that the file names, each perhaps more than once.
    pub fn osgroups(&self) -> impl Iterator<Item = &str> {
        let in_groups = self.groups.iter().flat_map(|group| &group.members);
        self.rules.iter().map(|rule| &rule.actor).chain(in_groups).filter_map(|actor| match actor {
            Actor::OsGroup(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What `user` may do in a session of `owner`. `is_in_osgroup` says whether `user` is in a group of the host.
    ///
    /// Lines act in order, later ones over earlier ones, save that what a `deny` names stays denied. The sequence of
    /// secure attention is nothing without the keyboard.
    pub fn features_of(&self, user: &str, owner: &str, is_in_osgroup: impl Fn(&str) -> bool) -> Features {
        let mut membership = Vec::with_capacity(self.groups.len());
        let names = |actor: &Actor, membership: &[bool]| match actor {
            Actor::User(name) => is_same_user(name, user),
            Actor::Group(index) => membership.get(*index).copied().unwrap_or(false),
            Actor::OsGroup(name) => is_in_osgroup(name),
            Actor::Owner => is_same_user(owner, user),
            Actor::Any => true,
        };
        for group in &self.groups {
            let member = group.members.iter().any(|actor| names(actor, &membership));
            membership.push(member);
        }
        let (mut allowed, mut denied) = (Features::NONE, Features::NONE);
        for rule in self.rules.iter().filter(|rule| names(&rule.actor, &membership)) {
            match rule.verdict {
                Verdict::Allow => allowed = allowed.with(rule.features),
                Verdict::Disallow => allowed = allowed.without(rule.features),
                Verdict::Deny => denied = denied.with(rule.features),
            }
        }
        let allowed = allowed.without(denied);
        if allowed.contains(Features::KEYBOARD) { allowed } else { allowed.without(Features::KEYBOARD_SAS) }
    }
}

/// Whether two names are of one person: equal, and for those of a Windows domain in whatever case.
fn is_same_user(a: &str, b: &str) -> bool {
    a == b || (a.contains('\\') && a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str, user: &str) -> Vec<&'static str> {
        let permissions = Permissions::parse(Some(text)).unwrap();
        permissions.features_of(user, "ann", |group| group == "staff" && user == "bob").words().collect()
    }

    #[test]
    fn without_a_file_the_owner_has_everything_and_nobody_else_anything() {
        let permissions = Permissions::parse(None).unwrap();
        assert_eq!(permissions.features_of("ann", "ann", |_| true), Features::BUILTIN);
        assert_eq!(permissions.features_of("bob", "ann", |_| true), Features::NONE);
        assert_eq!(Permissions::parse(Some("[permissions]\n%owner% allow builtin")).unwrap(), permissions);
    }

    #[test]
    fn an_empty_file_revokes_all() {
        assert_eq!(words("", "ann"), [""; 0]);
        assert_eq!(words("# nothing\n\n[permissions]\n", "ann"), [""; 0]);
    }

    #[test]
    fn lines_act_in_order_and_a_deny_is_final() {
        let cases = [
            ("%any% allow display mouse\nbob disallow mouse", "bob", vec!["display"]),
            ("bob disallow mouse\n%any% allow display mouse", "bob", vec!["display", "mouse"]),
            ("bob deny mouse\n%any% allow display mouse", "bob", vec!["display"]),
            ("%any% allow display mouse\nbob deny mouse\nbob allow mouse", "bob", vec!["display"]),
            ("%any% allow display mouse\nbob deny mouse", "carl", vec!["display", "mouse"]),
            ("%owner% allow display\nuser:bob allow mouse", "ann", vec!["display"]),
            ("%owner% allow display\nuser:bob allow mouse", "bob", vec!["mouse"]),
            ("osgroup:staff allow display", "bob", vec!["display"]),
            ("osgroup:staff allow display", "ann", vec![]),
            ("%any% allow keyboard-sas", "bob", vec![]),
            ("%any% allow keyboard-sas keyboard", "bob", vec!["keyboard", "keyboard-sas"]),
            ("an owner 1890 allow display", "an owner 1890", vec!["display"]),
            ("user:allow allow display", "allow", vec!["display"]),
            ("DOMAIN\\eve allow display", "domain\\Eve", vec!["display"]),
            ("eve allow display", "Eve", vec![]),
        ];
        for (lines, user, expected) in cases {
            assert_eq!(words(&format!("[permissions]\n{lines}\n"), user), expected, "{lines}");
        }
    }

    #[test]
    fn the_documented_example_reads_as_documented() {
        let text = "[groups]\nteam=ann, bob, DOMAIN\\eve, osgroup:engineers\n\n[aliases]\n\
            file-transfer=file-upload, file-download\nhelpdesk=display, pointer, mouse, keyboard\n\n[permissions]\n\
            %owner% allow builtin\ngroup:team allow display pointer audio-out file-transfer\n\
            osgroup:visitors disallow clipboard-copy clipboard-paste\n%any% deny printer usb\n";
        assert_eq!(words(text, "bob"), ["audio-out", "display", "file-download", "file-upload", "pointer"]);
        assert_eq!(words(text, "zoe"), [""; 0]);
        let owner = Permissions::parse(Some(text)).unwrap().features_of("ann", "ann", |group| group == "visitors");
        assert_eq!(owner.words().count(), 23 - 4);
        let named: Vec<_> = Permissions::parse(Some(text)).unwrap().osgroups().map(str::to_owned).collect();
        assert_eq!(named, ["visitors", "engineers"]);
    }

    #[test]
    fn groups_and_aliases_nest_in_any_order() {
        let text = "[permissions]\ngroup:all allow view\n[aliases]\nview=see, mouse\nsee=display\n\
            [groups]\nall=group:some, user:carl\nsome=bob, osgroup:staff\n";
        assert_eq!(words(text, "bob"), ["display", "mouse"]);
        assert_eq!(words(text, "carl"), ["display", "mouse"]);
        assert_eq!(words(text, "ann"), [""; 0]);
    }

    #[test]
    fn many_groups_of_many_groups_take_no_time() {
        let chain = |name: &str, prefix: &str| -> String {
            (1..3000)
                .map(|i| [format!("{name}{i}={prefix}{name}{}", i - 1), format!(",{prefix}{name}{}\n", i / 2)].concat())
                .collect()
        };
        let (groups, aliases) = (chain("g", "group:"), chain("a", ""));
        let text = format!(
            "[groups]\ng0=bob\n{groups}[aliases]\na0=display\n{aliases}[permissions]\ngroup:g2999 allow a2999\n"
        );
        assert_eq!(words(&text, "bob"), ["display"]);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("#import ../base.perm", "line 1: #import is not possible in a text that is given inline"),
            ("[permissions]\n\n  #import\tx", "line 3: #import is not possible in a text that is given inline"),
            ("%owner% allow builtin", "line 1: text before the first section"),
            ("[permissions", "line 1: unknown section \"[permissions\""),
            ("[rules]", "line 1: unknown section \"[rules]\""),
            ("[permissions]\nbob allow flying", "line 2: unknown feature or alias \"flying\""),
            ("[permissions]\nbob allow display, mouse", "line 2: unknown feature or alias \"display,\""),
            ("[permissions]\nbob allow", "line 2: no feature after \"allow\""),
            ("[permissions]\nbob permit display", "line 2: expected an actor, then allow, disallow or deny"),
            ("[permissions]\nallow display", "line 2: expected an actor, then allow, disallow or deny"),
            ("[permissions]\ngroup:x allow display", "line 2: unknown group \"x\""),
            ("[permissions]\n%all% allow display", "line 2: unknown actor \"%all%\""),
            ("[permissions]\nuser: allow display", "line 2: no name after \"user:\""),
            ("[groups]\nteam", "line 2: expected name = members"),
            ("[groups]\n= bob", "line 2: expected name = members"),
            ("[groups]\na=bob\na=carl", "line 3: group \"a\" is defined twice"),
            ("[groups]\na=b%any%, %any%", "line 2: %any% cannot be a member of a group"),
            ("[groups]\na=bob,,carl", "line 2: a member is empty"),
            ("[groups]\na=group:b\nb=group:a", "line 2: group \"a\" contains itself"),
            ("[aliases]\nx=y\ny=x\nz=display", "line 2: alias \"x\" contains itself"),
            ("[aliases]\ndisplay=mouse", "line 2: \"display\" is a feature and cannot be an alias"),
            ("[aliases]\nbuiltin=mouse", "line 2: \"builtin\" is a feature and cannot be an alias"),
            ("[aliases]\nx=flying", "line 2: unknown feature or alias \"flying\""),
        ];
        for (text, expected) in cases {
            assert_eq!(Permissions::parse(Some(text)).unwrap_err().to_string(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[permissions\\]|\\[groups\\]|\\[aliases\\]|#import|[a-c=,:% \\n\\\\]|group:|allow|deny|display|\\PC){0,60}") {
            if let Ok(permissions) = Permissions::parse(Some(&text)) {
                permissions.features_of("a", "b", |_| true);
            }
        }

        #[test]
        fn what_is_denied_to_all_nobody_has(lines in proptest::collection::vec((0..3usize, 0..3usize, 0..23usize), 0..20), at in 0..20usize) {
            let actors = ["%owner%", "bob", "%any%"];
            let verdicts = ["allow", "disallow", "deny"];
            let mut text: Vec<String> = lines.iter().map(|(actor, verdict, feature)| {
                format!("{} {} {}", actors[*actor], verdicts[*verdict], Features::BUILTIN.words().nth(*feature).unwrap())
            }).collect();
            text.insert(at.min(text.len()), "%any% deny display".into());
            let permissions = Permissions::parse(Some(&format!("[permissions]\n{}", text.join("\n")))).unwrap();
            prop_assert!(!permissions.features_of("bob", "ann", |_| false).contains(Features::DISPLAY));
        }

        #[test]
        fn the_last_line_decides_unless_one_denies(lines in proptest::collection::vec((0..4usize, 0..3usize, 0..3usize), 0..12)) {
            let (actors, verdicts) = (["%owner%", "bob", "%any%", "osgroup:staff"], ["allow", "disallow", "deny"]);
            let features = ["display", "mouse", "printer"];
            let text: Vec<String> = lines
                .iter()
                .map(|(actor, verdict, feature)| format!("{} {} {}", actors[*actor], verdicts[*verdict], features[*feature]))
                .collect();
            let permissions = Permissions::parse(Some(&format!("[permissions]\n{}", text.join("\n")))).unwrap();
            // Whom each actor names: the owner ann, bob of the staff, and cid.
            for (user, named) in [("ann", [true, false, true, false]), ("bob", [false, true, true, true]), ("cid", [false, false, true, false])] {
                let found = permissions.features_of(user, "ann", |group| group == "staff" && user == "bob");
                for (index, feature) in features.iter().enumerate() {
                    let about = || lines.iter().filter(|(actor, _, of)| named[*actor] && *of == index).map(|(_, verdict, _)| *verdict);
                    let expected = !about().any(|verdict| verdict == 2) && about().next_back() == Some(0);
                    prop_assert_eq!(found.contains(Features::from_word(feature).unwrap()), expected, "{} {}", user, feature);
                }
            }
        }
    }
}
