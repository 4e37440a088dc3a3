//! From the text of a permissions file to [`Permissions`].

use std::collections::HashMap;

use super::Actor;
use super::Features;
use super::Group;
use super::Permissions;
use super::Rule;
use super::Verdict;

/// Why a text is no permissions file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line of the fault, from 1.
    pub line: usize,
    /// The fault.
    pub message: String,
}

fn fault<T>(line: usize, message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError { line, message: message.into() })
}

#[derive(Clone, Copy)]
enum Section {
    Groups,
    Aliases,
    Permissions,
}

/// `name=item, item` of a line.
struct Definition<'a> {
    line: usize,
    name: &'a str,
    items: Vec<&'a str>,
}

/// A line of the permissions, its words not yet looked up.
struct RawRule<'a> {
    line: usize,
    actor: &'a str,
    verdict: Verdict,
    features: Vec<&'a str>,
}

pub(super) fn parse(text: &str) -> Result<Permissions, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut section = None;
    let (mut groups, mut aliases, mut rules) = (Vec::new(), Vec::new(), Vec::new());
    for (index, raw) in text.lines().enumerate() {
        let (line, content) = (index + 1, raw.trim());
        if let Some(rest) = content.strip_prefix("#import")
            && rest.chars().next().is_none_or(char::is_whitespace)
        {
            return fault(line, "#import is not possible in a text that is given inline");
        }
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if content.starts_with('[') {
            section = Some(parse_section(line, content)?);
            continue;
        }
        match section {
            None => return fault(line, "text before the first section"),
            Some(Section::Groups) => groups.push(parse_definition(line, content, "expected name = members")?),
            Some(Section::Aliases) => aliases.push(parse_definition(line, content, "expected name = features")?),
            Some(Section::Permissions) => rules.push(parse_rule(line, content)?),
        }
    }
    let aliases = resolve_aliases(&aliases)?;
    let (index_of, groups) = resolve_groups(&groups)?;
    let rules = rules.into_iter().map(|rule| resolve_rule(&rule, &index_of, &aliases)).collect::<Result<_, _>>()?;
    Ok(Permissions { groups, rules })
}

fn parse_section(line: usize, content: &str) -> Result<Section, ParseError> {
    match content {
        "[groups]" => Ok(Section::Groups),
        "[aliases]" => Ok(Section::Aliases),
        "[permissions]" => Ok(Section::Permissions),
        other => fault(line, format!("unknown section {other:?}")),
    }
}

fn parse_definition<'a>(line: usize, content: &'a str, expected: &str) -> Result<Definition<'a>, ParseError> {
    let Some((name, items)) = content.split_once('=') else { return fault(line, expected) };
    let name = name.trim();
    if name.is_empty() {
        return fault(line, expected);
    }
    let items: Vec<_> = if items.trim().is_empty() { Vec::new() } else { items.split(',').map(str::trim).collect() };
    if items.contains(&"") {
        return fault(line, "a member is empty");
    }
    Ok(Definition { line, name, items })
}

/// The actor may hold blanks: it reaches to the first rule word after its first word.
fn parse_rule(line: usize, content: &str) -> Result<RawRule<'_>, ParseError> {
    let mut offset = 0;
    for (position, word) in content.split_whitespace().enumerate() {
        let start = offset + content[offset..].find(word).unwrap_or(0);
        offset = start + word.len();
        let verdict = match word {
            "allow" => Verdict::Allow,
            "disallow" => Verdict::Disallow,
            "deny" => Verdict::Deny,
            _ => continue,
        };
        if position == 0 {
            continue;
        }
        let features: Vec<_> = content[offset..].split_whitespace().collect();
        if features.is_empty() {
            return fault(line, format!("no feature after {word:?}"));
        }
        return Ok(RawRule { line, actor: content[..start].trim_end(), verdict, features });
    }
    fault(line, "expected an actor, then allow, disallow or deny")
}

/// Looks a word up among the features and the aliases known so far.
fn feature(line: usize, word: &str, aliases: &HashMap<&str, Features>) -> Result<Features, ParseError> {
    match Features::from_word(word).or_else(|| aliases.get(word).copied()) {
        Some(features) => Ok(features),
        None => fault(line, format!("unknown feature or alias {word:?}")),
    }
}

fn resolve_aliases<'a>(definitions: &[Definition<'a>]) -> Result<HashMap<&'a str, Features>, ParseError> {
    if let Some(wrong) = definitions.iter().find(|definition| Features::from_word(definition.name).is_some()) {
        return fault(wrong.line, format!("{:?} is a feature and cannot be an alias", wrong.name));
    }
    let order = order(definitions, "alias", Some)?;
    let mut aliases = HashMap::new();
    for index in order {
        let Definition { line, name, items } = &definitions[index];
        let mut features = Features::NONE;
        for item in items {
            features = features.with(feature(*line, item, &aliases)?);
        }
        aliases.insert(*name, features);
    }
    Ok(aliases)
}

/// The groups, each after those it contains, and where each name is among them.
fn resolve_groups<'a>(definitions: &[Definition<'a>]) -> Result<(HashMap<&'a str, usize>, Vec<Group>), ParseError> {
    let order = order(definitions, "group", |item| item.strip_prefix("group:"))?;
    let (mut index_of, mut groups) = (HashMap::new(), Vec::with_capacity(order.len()));
    for index in order {
        let Definition { line, name, items } = &definitions[index];
        let mut group = Group::default();
        for item in items {
            let member = actor(*line, item, &index_of)?;
            if matches!(member, Actor::Owner | Actor::Any) {
                return fault(*line, format!("{item} cannot be a member of a group"));
            }
            group.members.push(member);
        }
        index_of.insert(*name, groups.len());
        groups.push(group);
    }
    Ok((index_of, groups))
}

fn resolve_rule(
    rule: &RawRule<'_>,
    groups: &HashMap<&str, usize>,
    aliases: &HashMap<&str, Features>,
) -> Result<Rule, ParseError> {
    let mut features = Features::NONE;
    for word in &rule.features {
        features = features.with(feature(rule.line, word, aliases)?);
    }
    Ok(Rule { actor: actor(rule.line, rule.actor, groups)?, verdict: rule.verdict, features })
}

fn actor(line: usize, word: &str, groups: &HashMap<&str, usize>) -> Result<Actor, ParseError> {
    if word == "%owner%" {
        return Ok(Actor::Owner);
    }
    if word == "%any%" {
        return Ok(Actor::Any);
    }
    if word.starts_with('%') {
        return fault(line, format!("unknown actor {word:?}"));
    }
    let (kind, name) = ["user:", "group:", "osgroup:"]
        .into_iter()
        .find_map(|kind| word.strip_prefix(kind).map(|name| (kind, name.trim())))
        .unwrap_or(("", word));
    if name.is_empty() {
        return fault(line, format!("no name after {kind:?}"));
    }
    match kind {
        "group:" => match groups.get(name) {
            Some(index) => Ok(Actor::Group(*index)),
            None => fault(line, format!("unknown group {name:?}")),
        },
        "osgroup:" => Ok(Actor::OsGroup(name.to_owned())),
        _ => Ok(Actor::User(name.to_owned())),
    }
}

/// The definitions so that each comes after those it uses; `used` gives the name an item refers to, if it does.
///
/// Not recursive, so that no text overflows the stack (Kahn's algorithm).
fn order<'a>(
    definitions: &[Definition<'a>],
    what: &str,
    used: impl Fn(&'a str) -> Option<&'a str>,
) -> Result<Vec<usize>, ParseError> {
    let mut index_of = HashMap::new();
    for (index, definition) in definitions.iter().enumerate() {
        if index_of.insert(definition.name, index).is_some() {
            return fault(definition.line, format!("{what} {:?} is defined twice", definition.name));
        }
    }
    let mut missing = vec![0_usize; definitions.len()];
    let mut users_of = vec![Vec::new(); definitions.len()];
    for (index, definition) in definitions.iter().enumerate() {
        for name in definition.items.iter().filter_map(|item| used(item)) {
            if let Some(&dependency) = index_of.get(name.trim()) {
                missing[index] += 1;
                users_of[dependency].push(index);
            }
        }
    }
    let mut ordered: Vec<usize> = (0..definitions.len()).filter(|index| missing[*index] == 0).collect();
    let mut next = 0;
    while let Some(&done) = ordered.get(next) {
        next += 1;
        for &user in &users_of[done] {
            missing[user] -= 1;
            if missing[user] == 0 {
                ordered.push(user);
            }
        }
    }
    match definitions.iter().zip(&missing).find(|(_, missing)| **missing > 0) {
        Some((stuck, _)) => fault(stuck.line, format!("{what} {:?} contains itself", stuck.name)),
        None => Ok(ordered),
    }
}
