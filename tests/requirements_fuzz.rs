//! Damaged requirements, as many as time allows: none panics, and what holds for all texts holds for each.
//!
//! Runs on the stable toolchain. It cuts texts into tokens and changes those, and keeps a text that leads to something new to go
//! on from. `FUZZ_SECONDS` says for how long; absent, five seconds.

use std::collections::HashSet;
use std::panic;
use std::time::Duration;
use std::time::Instant;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

use dcv_operator::requirement::Dialect;
use dcv_operator::requirement::Facts;
use dcv_operator::requirement::ParseError;
use dcv_operator::requirement::Property;
use dcv_operator::requirement::Requirement;
use dcv_operator::requirement::Value;

/// What it starts from: texts that known clients send, and every form of the language.
const SEEDS: [&str; 14] = [
    "tag:test = 1",
    "tag:color = 'pink' and (server:Host.Os.Family = 'windows' or tag:color := 'red')",
    "server:Host.Aws.Ec2InstanceType := 't2' and server:Host.CpuInfo.NumberOfCpus >= 2",
    "(server:Host.Os.Family='linux' and (server:Host.CpuInfo.NumberOfCpus=4 or server:Host.CpuInfo.NumberOfCpus=8))",
    "server:Host.Memory.TotalBytes > 1024E6 AND NOT tag:dcv:os-name != 'o''neil'",
    "not (not tag:a <= -1.5e+3) or label:'nvidia.com/gpu.product' = 'A10' and label:zone < '5'",
    "server:Host.Aws.EC2InstanceId = 'i-1'",
    "ram_gb = '4'",
    "tag:a == \"x\" && tag:b || !tag:c in (1., .5, 4GB)",
    "tag:cost-center = 'a' or 'b'",
    "tag: a =~ “é漢”",
    "not not tag:a = 'it's'",
    "server:Host.Gpus.ModelName := 'A' and server:Host.Gpus.ModelName != 'A10'",
    "tag:a = 1 and tag:a = 2.0 and tag:a > 'x'",
];

/// Tokens that are put in.
const TOKENS: [&str; 32] = [
    "tag:a",
    "tag:",
    "server:Id",
    "server:",
    "label:zone",
    "label:'a.b/c'",
    "label:",
    "=",
    "!=",
    ":=",
    ">",
    ">=",
    "<",
    "<=",
    "'",
    "''",
    "'x'",
    "1",
    "-2.5E3",
    "1e999",
    "9007199254740993",
    "and",
    "or",
    "not",
    "(",
    ")",
    " ",
    "\n",
    "\0",
    "\"",
    "é漢",
    "\u{feff}",
];

/// Most texts it keeps.
const LARGEST_CORPUS: usize = 5000;
/// Longest text it makes, in bytes: more than the language takes.
const LONGEST: usize = 20_000;
/// Longest time that one text may take.
const SLOWEST: Duration = Duration::from_secs(2);

/// A host for which comparisons of all kinds can be true.
struct Host(Vec<String>);

impl Facts for Host {
    fn tag(&self, key: &str) -> Option<&str> {
        (key.len() % 2 == 1).then(|| self.0[key.len() % self.0.len()].as_str())
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.tag(key)
    }

    fn property(&self, property: Property) -> Option<Value<'_>> {
        match property {
            Property::Id | Property::HostOsFamily => Some(Value::Text("linux")),
            Property::HostCpuInfoNumberOfCpus => Some(Value::Number(4.0)),
            Property::HostMemoryTotalBytes => Some(Value::Number(9_007_199_254_740_992.0)),
            Property::HostCpuLoadAverageOneMinute => Some(Value::Number(f64::NAN)),
            property if property.is_multiple() => Some(Value::Texts(&self.0)),
            _ => None,
        }
    }
}

/// Panics when `text` is not treated as every text must be; else what became of it, in a form that is equal for like texts.
fn check(text: &str, host: &Host) -> String {
    let read = Requirement::parse(text, Dialect::Extended);
    if let Ok(documented) = Requirement::parse(text, Dialect::Documented) {
        assert_eq!(read, Ok(documented), "the dialects differ");
    }
    match read {
        Ok(None) => {
            assert!(text.trim().is_empty());
            String::new()
        }
        Ok(Some(requirement)) => check_requirement(&requirement, host),
        Err(error) => check_error(text, &error),
    }
}

fn check_requirement(requirement: &Requirement, host: &Host) -> String {
    let canonical = requirement.to_string();
    // With the blanks of the canonical text a long requirement can be too long.
    if canonical.chars().count() <= dcv_operator::requirement::MAX_CHARACTERS {
        assert_eq!(Requirement::parse(&canonical, Dialect::Extended), Ok(Some(requirement.clone())), "{canonical}");
    }
    let matches = requirement.matches(host);
    assert_eq!(requirement.refuted_by(host).is_none(), matches);
    assert_eq!(requirement.clauses().iter().all(|clause| clause.matches(host)), matches);
    let contradiction = requirement.contradiction();
    assert!(contradiction.is_none() || !matches, "met, although {}", contradiction.unwrap());
    shape(&canonical)
}

fn check_error(text: &str, error: &ParseError) -> String {
    assert!(text.is_char_boundary(error.offset()));
    let (line, marked) = (error.to_string(), format!("{error:#}"));
    assert!(line.lines().count() == 1 && line.chars().count() < 300, "{line}");
    assert!(marked.starts_with(&line) && marked.chars().count() < 600, "{marked}");
    shape(error.message())
}

/// `text` with each run of letters, digits and blanks as one sign, and not all of it.
fn shape(text: &str) -> String {
    let mut shape: Vec<char> = text
        .chars()
        .map(|c| {
            if c.is_alphabetic() {
                'a'
            } else if c.is_numeric() {
                '1'
            } else {
                c
            }
        })
        .collect();
    shape.dedup();
    shape.into_iter().take(60).collect()
}

/// Words, signs and blanks of `text`.
fn tokens(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
    let mut tokens: Vec<String> = Vec::new();
    let mut glue = false;
    for c in text.chars() {
        match tokens.last_mut() {
            Some(last) if glue && is_word(c) => last.push(c),
            _ => tokens.push(c.to_string()),
        }
        glue = is_word(c);
    }
    tokens
}

/// A new text made of `one` and `other`.
fn mutated(random: &mut StdRng, one: &str, other: &str) -> String {
    let (mut tokens, other) = (tokens(one), tokens(other));
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=tokens.len());
        let end = (at + random.random_range(0..4)).min(tokens.len());
        match random.random_range(0..8) {
            0 => drop(tokens.drain(at..end)),
            1 => tokens.insert(at, TOKENS[random.random_range(0..TOKENS.len())].to_owned()),
            2 => {
                tokens.splice(at..end, [TOKENS[random.random_range(0..TOKENS.len())].to_owned()]);
            }
            3 => {
                let from = random.random_range(0..=other.len());
                tokens.splice(at..end, other[from..].iter().cloned());
            }
            4 => {
                let copy = tokens[at..end].concat().repeat(random.random_range(1..80));
                tokens.insert(at, copy);
            }
            5 => {
                let before = if random.random() { "(" } else { "not (" };
                tokens.insert(end, ")".to_owned());
                tokens.insert(at, before.to_owned());
            }
            6 => tokens.insert(at, char::from_u32(random.random_range(0..0x3000)).unwrap_or('\u{fffd}').to_string()),
            _ => {
                if let Some(token) = tokens.get_mut(at) {
                    let cut = token.char_indices().nth(random.random_range(0..4)).map_or(0, |(cut, _)| cut);
                    token.truncate(cut);
                }
            }
        }
    }
    let mut text = tokens.concat();
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

#[test]
fn damaged_requirements_are_all_answered() {
    let seconds = std::env::var_os("FUZZ_SECONDS").map_or(5, |text| text.to_str().unwrap().parse().unwrap());
    let host = Host(["", "4", "A10", "red", "2.0"].map(str::to_owned).to_vec());
    let mut random = StdRng::seed_from_u64(rand::random());
    let mut corpus: Vec<String> = SEEDS.map(str::to_owned).to_vec();
    let mut seen: HashSet<String> = HashSet::new();
    let mut tried = 0_u64;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let one = &corpus[random.random_range(0..corpus.len())];
        let other = &corpus[random.random_range(0..corpus.len())];
        let text = mutated(&mut random, one, other);
        let begin = Instant::now();
        let shape = panic::catch_unwind(|| check(&text, &host)).unwrap_or_else(|_| panic!("the text was {text:?}"));
        assert!(begin.elapsed() < SLOWEST, "{:?} for {text:?}", begin.elapsed());
        tried += 1;
        if corpus.len() < LARGEST_CORPUS && seen.insert(shape) {
            corpus.push(text);
        }
    }
    println!("{tried} texts, {} of them led to something new", seen.len());
    assert!(seen.len() > 100, "only {} kinds of outcome", seen.len());
}
