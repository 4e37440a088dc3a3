//! What a host needs, as files and as a script: pure text.
//!
//! Everything is in one folder, and the kubeconfig names its neighbours by their bare names, so the folder can be anywhere.

use std::fmt::Write;

use super::args::Backend;

/// Names of the files.
pub(super) const TOKEN: &str = "token";
const KUBECONFIG: &str = "kubeconfig";
const AUTHORITIES: &str = "ca.crt";
const SETTINGS: &str = "agent.conf";
const UNIT: &str = "dcv-operator-agent.service";
/// The script that puts them into place.
pub(super) const SCRIPT: &str = "install.sh";

/// What a host is told.
pub(super) struct Host {
    /// Name of its server, and of its account.
    pub server: String,
    /// Namespace of its account.
    pub hosts_namespace: String,
    /// Namespace of the operator.
    pub operator_namespace: String,
    /// Address of the API server.
    pub api_server: String,
    /// Name in the API server's certificate, where it is not the address's.
    pub tls_server_name: Option<String>,
    /// Authorities of the API server's certificate; absent: the system's.
    pub authorities: Option<String>,
    /// Folder for its files.
    pub folder: String,
    /// Our program there.
    pub program: String,
    pub backend: Backend,
    pub agent_args: Vec<String>,
}

/// One file.
#[derive(Debug, PartialEq)]
pub(super) struct File {
    pub name: &'static str,
    pub text: String,
    /// Whether one that is there already stays: people change it.
    pub is_theirs: bool,
}

impl Host {
    /// Its files, but for the token.
    pub(super) fn files(&self) -> Vec<File> {
        let ours = |name, text| File { name, text, is_theirs: false };
        let authorities = self.authorities.clone().map(|text| ours(AUTHORITIES, text));
        let settings = File { name: SETTINGS, text: SETTINGS_TEXT.to_owned(), is_theirs: true };
        let files = [settings, ours(KUBECONFIG, self.kubeconfig()), ours(UNIT, self.unit())];
        files.into_iter().chain(authorities).collect()
    }

    fn kubeconfig(&self) -> String {
        let Self { server, hosts_namespace, api_server, .. } = self;
        let authorities = self.authorities.as_ref().map(|_| format!("    certificate-authority: {AUTHORITIES}\n"));
        let name = self.tls_server_name.as_ref().map(|name| format!("    tls-server-name: {name}\n"));
        format!(
            "# How the agent of {server} reaches the API server. It renews the token by itself, in its file.\n\
             apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: cluster\n  cluster:\n    server: {api_server}\n{}{}\
             users:\n\
             - name: {server}\n  user:\n    tokenFile: {TOKEN}\n\
             contexts:\n\
             - name: {server}\n  context:\n    cluster: cluster\n    user: {server}\n    namespace: {hosts_namespace}\n\
             current-context: {server}\n",
            authorities.unwrap_or_default(),
            name.unwrap_or_default(),
        )
    }

    /// The agent's command line.
    fn command(&self) -> Vec<String> {
        let Self { server, operator_namespace, folder, program, backend, .. } = self;
        let words = [
            program.as_str(),
            "agent",
            "--backend",
            backend.as_str(),
            "--server-name",
            server,
            "--namespace",
            operator_namespace,
            "--kubeconfig",
            &format!("{folder}/{KUBECONFIG}"),
            "--config-file",
            &format!("{folder}/{SETTINGS}"),
        ];
        words.into_iter().map(str::to_owned).chain(self.agent_args.iter().cloned()).collect()
    }

    fn unit(&self) -> String {
        let words: Vec<_> = self.command().iter().map(|word| unit_word(word)).collect();
        let after = if self.backend == Backend::Dcv { " dcvserver.service" } else { "" };
        format!(
            "[Unit]\n\
             Description=dcv-operator agent of {}\n\
             Wants=network-online.target\n\
             After=network-online.target{after}\n\
             \n\
             [Service]\n\
             ExecStart={}\n\
             # What a screenshot took goes back at once.\n\
             Environment=MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=4194304\n\
             Restart=always\n\
             RestartSec=5\n\
             # Desktops outlive the agent.\n\
             KillMode=process\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            self.server,
            words.join(" "),
        )
    }

    /// The script that makes the files on the host itself. Without a token it says what to do about that.
    pub(super) fn script_with_files(&self, token: Option<&str>) -> String {
        let mut script = self.head();
        for file in self.files() {
            let guard = if file.is_theirs { format!("[ -e \"$folder/{}\" ] || ", file.name) } else { String::new() };
            let _ = write!(script, "{guard}cat >\"$folder/{}\" <<'{END}'\n{}{END}\n", file.name, file.text);
        }
        if let Some(token) = token {
            // Without a line end, which would be taken for a part of it.
            let _ = writeln!(script, "printf %s '{token}' >\"$folder/{TOKEN}\"");
        }
        script + &self.tail()
    }

    /// The script that stands beside the files.
    pub(super) fn script_beside_files(&self) -> String {
        let mut script = self.head();
        script += "here=$(cd \"$(dirname \"$0\")\" && pwd)\n";
        for file in self.files() {
            let guard = if file.is_theirs { format!("[ -e \"$folder/{}\" ] || ", file.name) } else { String::new() };
            let _ = writeln!(script, "{guard}cp \"$here/{0}\" \"$folder/{0}\"", file.name);
        }
        let _ = writeln!(script, "mv \"$here/{TOKEN}\" \"$folder/{TOKEN}\"");
        script + &self.tail()
    }

    fn head(&self) -> String {
        format!(
            "#!/bin/sh\n\
             # Makes this host the server {} of the cluster at {}. To be run as root.\n\
             set -eu\n\
             umask 077\n\
             folder={}\n\
             program={}\n\
             mkdir -p \"$folder\"\n",
            self.server, self.api_server, self.folder, self.program,
        )
    }

    fn tail(&self) -> String {
        let words: Vec<_> = self.command().iter().map(|word| shell_word(word)).collect();
        format!(
            "[ -x \"$program\" ] || {{ echo \"put dcv-operator at $program, then run this again\" >&2; exit 1; }}\n\
             [ -s \"$folder/{TOKEN}\" ] || {{ echo \"the token is missing: $folder/{TOKEN}\" >&2; exit 1; }}\n\
             if [ -d /run/systemd/system ]; then\n  \
             systemctl daemon-reload\n  \
             systemctl enable \"$folder/{UNIT}\"\n  \
             systemctl restart {UNIT}\n\
             else\n  \
             echo 'there is no systemd: see to it that this runs, as root:'\n  \
             cat <<'{END}'\n{}\n{END}\n\
             fi\n",
            words.join(" "),
        )
    }
}

/// What no file has as a line.
const END: &str = "END-OF-FILE";

const SETTINGS_TEXT: &str = "\
# Settings of the agent, with the keys that Session Manager documents for its own. What is commented out is the default.
version = '0.1'

[agent]
#init_folder = '/var/lib/dcv-session-manager-agent/init'
#autorun_folder = '/var/lib/dcv-session-manager-agent/autorun'
#tags_folder = '/etc/dcv-session-manager-agent/tags'
#max_virtual_sessions = -1
#max_concurrent_sessions_per_user = 1
#preferred_network_interface = 'eth0'

[log]
#level = 'info'
";

/// A word of a unit's command line.
///
/// Source: "Quoting" and "Specifiers" in systemd.syntax(7) and systemd.unit(5).
fn unit_word(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    if is_plain(&word.replace(['%', '$'], "")) {
        word
    } else {
        format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
    }
}

/// A word of a shell's command line.
fn shell_word(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            server: "host-lab7".into(),
            hosts_namespace: "dcv-hosts".into(),
            operator_namespace: "dcv-system".into(),
            api_server: "https://api.example:6443".into(),
            tls_server_name: None,
            authorities: Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
            folder: "/etc/dcv-operator".into(),
            program: "/usr/local/bin/dcv-operator".into(),
            backend: Backend::Dcv,
            agent_args: vec!["--owner-pattern=[a-z]{1,8} x%".into()],
        }
    }

    #[test]
    fn the_kubeconfig_names_its_neighbours() {
        let text = host().kubeconfig();
        let config: kube::config::Kubeconfig = serde_saphyr::from_str(&text).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://api.example:6443"));
        assert_eq!(cluster.certificate_authority.as_deref(), Some("ca.crt"));
        assert_eq!(config.auth_infos[0].auth_info.clone().unwrap().token_file.as_deref(), Some("token"));
        assert_eq!(config.contexts[0].context.clone().unwrap().namespace.as_deref(), Some("dcv-hosts"));
        let plain = Host { authorities: None, tls_server_name: Some("api".into()), ..host() }.kubeconfig();
        assert!(!plain.contains("certificate-authority") && plain.contains("    tls-server-name: api\n"), "{plain}");
    }

    #[test]
    fn the_unit_starts_the_agent_and_leaves_desktops_alone() {
        let unit = host().unit();
        let start = "ExecStart=/usr/local/bin/dcv-operator agent --backend dcv --server-name host-lab7 --namespace dcv-system \
                     --kubeconfig /etc/dcv-operator/kubeconfig --config-file /etc/dcv-operator/agent.conf \
                     \"--owner-pattern=[a-z]{1,8} x%%\"\n";
        assert!(unit.contains(start), "{unit}");
        assert!(unit.contains("\nKillMode=process\n") && unit.contains("target dcvserver.service\n"), "{unit}");
        assert!(!Host { backend: Backend::Vnc, ..host() }.unit().contains("dcvserver"));
    }

    #[test]
    fn words_are_quoted_where_they_must_be() {
        assert_eq!(["a=b", "a b", "a'b", ""].map(shell_word), ["a=b", "'a b'", r"'a'\''b'", "''"]);
        assert_eq!(["a", "50%", "a\"b", r"\d"].map(unit_word), ["a", "50%%", r#""a\"b""#, r#""\\d""#]);
    }

    /// Runs a script on a folder of its own, and tells how that went.
    fn run(script: &str, folder: &std::path::Path) -> (bool, String) {
        let file = folder.join("script");
        std::fs::write(&file, script).unwrap();
        let output = std::process::Command::new("sh").arg(file).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    #[test]
    fn both_scripts_put_the_same_files_into_place_and_keep_peoples_settings() {
        use std::os::unix::fs::PermissionsExt;

        let disk = tempfile::tempdir().unwrap();
        let folder = disk.path().join("etc");
        let host = Host { folder: folder.display().to_string(), program: "/bin/sh".into(), ..host() };
        let check = |said: (bool, String)| {
            assert!(said.0, "{}", said.1);
            let mode = std::fs::metadata(folder.join(TOKEN)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            for file in host.files().iter().filter(|file| !file.is_theirs) {
                assert_eq!(std::fs::read_to_string(folder.join(file.name)).unwrap(), file.text);
            }
            assert_eq!(std::fs::read_to_string(folder.join(TOKEN)).unwrap(), "the-token");
        };
        check(run(&host.script_with_files(Some("the-token")), disk.path()));
        std::fs::write(folder.join(SETTINGS), "mine").unwrap();
        std::fs::remove_file(folder.join(TOKEN)).unwrap();
        let (is_good, said) = run(&host.script_with_files(None), disk.path());
        assert!(!is_good && said.contains("the token is missing"), "{said}");

        for file in host.files() {
            std::fs::write(disk.path().join(file.name), file.text).unwrap();
        }
        std::fs::write(disk.path().join(TOKEN), "the-token").unwrap();
        std::fs::set_permissions(disk.path().join(TOKEN), PermissionsExt::from_mode(0o600)).unwrap();
        check(run(&host.script_beside_files(), disk.path()));
        assert_eq!(std::fs::read_to_string(folder.join(SETTINGS)).unwrap(), "mine");
        assert!(!disk.path().join(TOKEN).exists(), "a token is not left lying about");
    }
}
