//! Which broker, who asks, and whose certificates count: by the command line, else by the environment, else by
//! `dcvsmcli.conf`.
//!
//! Credentials are no options: everybody on the machine can read a command line. The file is never taken from the working
//! directory: whoever wrote it there would be sent the password.
//!
//! Source: "Configuring" in the Amazon DCV Session Manager CLI Guide.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use reqwest::Url;

use super::args::Options;
use super::error::Error;

const FILE_NAME: &str = "dcvsmcli.conf";

/// Text that is never shown.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The text, for who must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// `DCV_SM_AUTH_SERVER_URL`.
    pub auth_server_url: Option<String>,
    /// `DCV_SM_CLIENT_ID`.
    pub client_id: Option<String>,
    /// `DCV_SM_CLIENT_PASSWORD`.
    pub client_password: Option<Secret>,
    /// `DCV_SM_OAUTH2_TOKEN`.
    pub oauth2_token: Option<Secret>,
    /// Where configuration files are: `XDG_CONFIG_HOME`, else `.config` at home.
    pub configuration_folder: Option<PathBuf>,
}

impl Environment {
    /// What the environment says now. Empty is unset.
    #[expect(clippy::disallowed_methods, reason = "the one place; no options, since credentials must not be options")]
    pub fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            auth_server_url: variable("DCV_SM_AUTH_SERVER_URL"),
            client_id: variable("DCV_SM_CLIENT_ID"),
            client_password: variable("DCV_SM_CLIENT_PASSWORD").map(Secret),
            oauth2_token: variable("DCV_SM_OAUTH2_TOKEN").map(Secret),
            configuration_folder: variable("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config"))),
        }
    }
}

/// What the configuration file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    broker: Option<Url>,
    auth_server: Option<Url>,
    client_id: Option<String>,
    client_password: Option<Secret>,
    ca_bundle: Option<PathBuf>,
    no_verify_ssl: Option<bool>,
    debug: Option<bool>,
}

impl File {
    /// Reads the file that is asked for, else the one in the usual place, if there is one.
    ///
    /// # Errors
    /// When a file that is asked for is missing, or one is broken.
    pub fn read(asked_for: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let usual = environment.configuration_folder.as_ref().map(|folder| folder.join(FILE_NAME));
        let Some(path) = asked_for.map(Path::to_owned).or(usual) else { return Ok(Self::default()) };
        let parsed = match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && asked_for.is_none() => return Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        let mut file = parsed.map_err(|fault| Error::Configuration { file: path.display().to_string(), fault })?;
        // What stands in a file does not depend on where one is.
        file.ca_bundle = file.ca_bundle.map(|bundle| path.parent().unwrap_or(Path::new("")).join(bundle));
        Ok(file)
    }

    /// Reads sections of `key = value` or `key: value`. Sections and keys that mean nothing here are let be.
    fn parse(text: &str) -> Result<Self, String> {
        let mut file = Self::default();
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            // A line may hold the password: only its number is told.
            let place = format!("line {}", number + 1);
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(|| format!("{place}: the section has no end"))?;
                name.trim().clone_into(&mut section);
                continue;
            }
            let (key, value) =
                line.split_once(['=', ':']).ok_or_else(|| format!("{place}: neither [section] nor key = value"))?;
            let (key, value) = (key.trim(), value.trim());
            if !value.is_empty() {
                file.set(&section, key, value).map_err(|fault| format!("{place}: {key}: {fault}"))?;
            }
        }
        Ok(file)
    }

    fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        match (section, key) {
            ("output", "output-format") => output_format(value)?,
            ("output", "debug") => self.debug = Some(truth(value)?),
            ("security", "no-verify-ssl") => self.no_verify_ssl = Some(truth(value)?),
            ("security", "ca-bundle") => self.ca_bundle = Some(value.into()),
            ("authentication", "auth-server-url") => self.auth_server = Some(address(value)?),
            ("authentication", "client-id") => self.client_id = Some(value.to_owned()),
            ("authentication", "client-password") => self.client_password = Some(Secret(value.to_owned())),
            ("broker", "url") => self.broker = Some(address(value)?),
            _ => {}
        }
        Ok(())
    }
}

fn output_format(text: &str) -> Result<(), String> {
    if text.eq_ignore_ascii_case("json") { Ok(()) } else { Err("the one format is json".to_owned()) }
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// Only HTTPS: what is sent there is the password, or what is as good.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("no address: {error}"))?;
    if url.scheme() == "https" { Ok(url) } else { Err("the address must start with https://".to_owned()) }
}

/// What a call needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The broker.
    pub broker: Url,
    /// Who asks.
    pub login: Login,
    /// Whose certificates count.
    pub trust: Trust,
    /// Whether to say what is asked of whom.
    pub is_debug: bool,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// Who has this access token.
    Token(Secret),
    /// A client that gets one.
    Client {
        /// Where, with the grant in the query.
        auth_server: Url,
        /// Its id.
        id: String,
        /// Its password.
        password: Secret,
    },
}

/// Whose certificates count.
#[derive(Clone, Debug, PartialEq)]
pub enum Trust {
    /// Those that the system trusts.
    System,
    /// Those signed by an authority in this file.
    Bundle(PathBuf),
    /// Anybody's.
    Anyone,
}

impl Settings {
    /// Puts together what is said in three places.
    ///
    /// # Errors
    /// When something is missing, or cannot be right.
    pub fn resolve(options: &Options, environment: &Environment, file: &File) -> Result<Self, Error> {
        if let Some(format) = &options.output_format {
            output_format(format).map_err(|fault| Error::Value(format!("--output-format: {fault}")))?;
        }
        let broker = match &options.broker {
            Some(text) => Some(address(text).map_err(|fault| Error::Value(format!("--broker: {fault}")))?),
            None => file.broker.clone(),
        };
        let broker = broker.ok_or_else(|| {
            Error::Environment("no broker: give --broker URL, or url in [broker] of dcvsmcli.conf".to_owned())
        })?;
        Ok(Self {
            login: login(&broker, options, environment, file)?,
            broker,
            trust: trust(options, file),
            is_debug: options.debug.or(file.debug).unwrap_or(false),
        })
    }
}

fn login(broker: &Url, options: &Options, environment: &Environment, file: &File) -> Result<Login, Error> {
    if let Some(token) = &environment.oauth2_token {
        return Ok(Login::Token(token.clone()));
    }
    let auth_server = match (&options.auth_server_url, &environment.auth_server_url) {
        (Some(text), _) => address(text).map_err(|fault| Error::Value(format!("--auth-server-url: {fault}")))?,
        (None, Some(text)) => {
            address(text).map_err(|fault| Error::Environment(format!("DCV_SM_AUTH_SERVER_URL: {fault}")))?
        }
        (None, None) => file.auth_server.clone().unwrap_or_else(|| broker.clone()),
    };
    let id = environment.client_id.as_ref().or(file.client_id.as_ref());
    let password = environment.client_password.as_ref().or(file.client_password.as_ref());
    let (id, password) = id.zip(password).ok_or_else(|| {
        Error::Environment(
            "no credentials: set DCV_SM_CLIENT_ID and DCV_SM_CLIENT_PASSWORD, or DCV_SM_OAUTH2_TOKEN, or client-id and \
             client-password in [authentication] of dcvsmcli.conf"
                .to_owned(),
        )
    })?;
    Ok(Login::Client { auth_server: token_endpoint(auth_server), id: id.clone(), password: password.clone() })
}

/// The guide shows a whole address in the file and only a host in the environment: what is missing is added.
fn token_endpoint(mut url: Url) -> Url {
    if url.path() == "/" {
        url.set_path("/oauth2/token");
    }
    if !url.query_pairs().any(|(name, _)| name == "grant_type") {
        url.query_pairs_mut().append_pair("grant_type", "client_credentials");
    }
    url
}

/// A bundle on the command line means to check, whatever the file says.
fn trust(options: &Options, file: &File) -> Trust {
    let is_asked = options.ca_bundle.is_some().then_some(false);
    if options.no_verify_ssl.or(is_asked).or(file.no_verify_ssl).unwrap_or(false) {
        return Trust::Anyone;
    }
    match options.ca_bundle.as_ref().or(file.ca_bundle.as_ref()) {
        Some(bundle) => Trust::Bundle(bundle.clone()),
        None => Trust::System,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = "
        [output]
        # The formatting style for command output.
        output-format = json
        debug = true

        [security]
        ; either of them
        no-verify-ssl = False
        ca-bundle = ca-bundle.pem
        [authentication]
        auth-server-url = https://auth.example:8443/oauth2/token?grant_type=client_credentials
        client-id = file-id
        client-password = 100%=file;#
        [broker]
        url: https://file.example:8443
        [of-another-version]
        key = value";

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    fn file() -> File {
        File::parse(DOCUMENTED).unwrap()
    }

    #[test]
    fn the_documented_file_is_understood() {
        let expected = File {
            broker: Some(url("https://file.example:8443")),
            auth_server: Some(url("https://auth.example:8443/oauth2/token?grant_type=client_credentials")),
            client_id: Some("file-id".into()),
            client_password: Some(secret("100%=file;#")),
            ca_bundle: Some("ca-bundle.pem".into()),
            no_verify_ssl: Some(false),
            debug: Some(true),
        };
        assert_eq!(file(), expected);
        assert_eq!(File::parse(""), Ok(File::default()));
        assert_eq!(File::parse("[broker]\nurl ="), Ok(File::default()), "as if it were not there");
    }

    #[test]
    fn a_broken_file_is_told_by_line_and_without_what_may_be_a_secret() {
        for (text, fault) in [
            ("[broker]\n\nurl", "line 3: neither"),
            ("[broker", "line 1: the section"),
            ("[broker]\nurl = broker.example", "line 2: url: no address"),
            ("[broker]\nurl = http://broker.example", "line 2: url: the address must start with https://"),
            ("[output]\noutput-format = xml", "line 2: output-format: the one format is json"),
            ("[security]\nno-verify-ssl = perhaps", "line 2: no-verify-ssl: neither"),
            ("[authentication]\nclient-password hunter2", "line 2: neither"),
        ] {
            let told = File::parse(text).unwrap_err();
            assert!(told.starts_with(fault) && !told.contains("hunter2"), "{text}: {told}");
        }
    }

    #[test]
    fn the_file_is_the_one_asked_for_or_the_one_in_the_usual_place() {
        let folder = tempfile::tempdir().unwrap();
        let usual = Environment { configuration_folder: Some(folder.path().into()), ..Environment::default() };
        assert_eq!(File::read(None, &usual), Ok(File::default()), "none is needed");
        std::fs::write(folder.path().join("dcvsmcli.conf"), DOCUMENTED).unwrap();
        let found = File::read(None, &usual).unwrap();
        assert_eq!(found, File { ca_bundle: Some(folder.path().join("ca-bundle.pem")), ..file() });
        std::fs::write(folder.path().join("other"), "[broker]\nurl = https://other.example").unwrap();
        let other = File::read(Some(&folder.path().join("other")), &usual).unwrap();
        assert_eq!(other.broker, Some(url("https://other.example")));
        for wrong in ["missing", "."] {
            let error = File::read(Some(&folder.path().join(wrong)), &usual).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{error}");
        }
    }

    fn options() -> Options {
        Options {
            broker: Some("https://flag.example/prefix".into()),
            auth_server_url: Some("https://flag-auth.example/token?scope=a".into()),
            ca_bundle: Some("flag.pem".into()),
            debug: Some(false),
            ..Options::default()
        }
    }

    fn environment() -> Environment {
        Environment {
            auth_server_url: Some("https://environment.example".into()),
            client_id: Some("environment-id".into()),
            client_password: Some(secret("environment")),
            ..Environment::default()
        }
    }

    fn client(auth_server: &str, id: &str, password: &str) -> Login {
        Login::Client { auth_server: url(auth_server), id: id.into(), password: secret(password) }
    }

    #[test]
    fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
        let resolve =
            |options: &Options, environment: &Environment| Settings::resolve(options, environment, &file()).unwrap();
        let by_file = Settings {
            broker: url("https://file.example:8443"),
            login: client(
                "https://auth.example:8443/oauth2/token?grant_type=client_credentials",
                "file-id",
                "100%=file;#",
            ),
            trust: Trust::Bundle("ca-bundle.pem".into()),
            is_debug: true,
        };
        assert_eq!(resolve(&Options::default(), &Environment::default()), by_file);
        let by_environment = Settings {
            login: client(
                "https://environment.example/oauth2/token?grant_type=client_credentials",
                "environment-id",
                "environment",
            ),
            ..by_file
        };
        assert_eq!(resolve(&Options::default(), &environment()), by_environment);
        let by_flags = Settings {
            broker: url("https://flag.example/prefix"),
            login: client(
                "https://flag-auth.example/token?scope=a&grant_type=client_credentials",
                "environment-id",
                "environment",
            ),
            trust: Trust::Bundle("flag.pem".into()),
            is_debug: false,
        };
        assert_eq!(resolve(&options(), &environment()), by_flags);
        let with_token = Environment { oauth2_token: Some(secret("token")), ..environment() };
        assert_eq!(resolve(&options(), &with_token).login, Login::Token(secret("token")));
    }

    #[test]
    fn without_an_auth_server_the_broker_gives_out_tokens() {
        let options = Options { broker: Some("https://b.example".into()), ..Options::default() };
        let environment = Environment { auth_server_url: None, ..environment() };
        let settings = Settings::resolve(&options, &environment, &File::default()).unwrap();
        let expected = "https://b.example/oauth2/token?grant_type=client_credentials";
        assert_eq!(settings.login, client(expected, "environment-id", "environment"));
        assert_eq!(settings.trust, Trust::System);
    }

    #[test]
    fn certificates_are_not_checked_only_when_that_is_the_last_word() {
        let trust = |no_verify_ssl, ca_bundle: Option<&str>, by_file| {
            let options = Options { no_verify_ssl, ca_bundle: ca_bundle.map(Into::into), ..Options::default() };
            super::trust(&options, &File { no_verify_ssl: by_file, ..File::default() })
        };
        assert_eq!(trust(Some(true), None, None), Trust::Anyone);
        assert_eq!(trust(Some(true), Some("a"), None), Trust::Anyone);
        assert_eq!(trust(None, None, Some(true)), Trust::Anyone);
        assert_eq!(trust(Some(false), None, Some(true)), Trust::System);
        assert_eq!(trust(None, Some("a"), Some(true)), Trust::Bundle("a".into()));
    }

    #[test]
    fn what_is_missing_or_wrong_has_its_exit_code() {
        let code = |options: &Options, environment: &Environment| {
            Settings::resolve(options, environment, &File::default()).map_err(|error| error.exit_code()).unwrap_err()
        };
        let broker = |text: &str| Options { broker: Some(text.into()), ..Options::default() };
        assert_eq!(code(&Options::default(), &environment()), 253, "no broker");
        assert_eq!(code(&broker("https://b"), &Environment::default()), 253, "no credentials");
        let id_only = Environment { client_password: None, ..environment() };
        assert_eq!(code(&broker("https://b"), &id_only), 253, "half of the credentials");
        let wrong = Environment { auth_server_url: Some("auth.example".into()), ..environment() };
        assert_eq!(code(&broker("https://b"), &wrong), 253);
        for address in ["b.example", "http://b.example", ""] {
            assert_eq!(code(&broker(address), &environment()), 252, "{address}");
        }
        assert_eq!(code(&Options { output_format: Some("xml".into()), ..options() }, &environment()), 252);
        assert_eq!(code(&Options { auth_server_url: Some("x".into()), ..options() }, &environment()), 252);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", environment(), Settings::resolve(&options(), &environment(), &file()));
        assert!(!shown.contains("\"environment\"") && shown.contains("(secret)"), "{shown}");
    }
}
