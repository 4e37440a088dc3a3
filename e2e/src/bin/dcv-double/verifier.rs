//! The server's side of the protocol by which it asks whether a token is good.
//!
//! Source: "Using external authentication" in the Amazon DCV Administrator Guide.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use reqwest::Certificate;

/// The settings of `dcv.conf` that the double knows, as `section/key`.
pub fn read_configuration(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let (mut values, mut section) = (BTreeMap::new(), String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches(|c| c == '"' || c == '\'');
            values.insert(format!("{section}/{}", key.trim()), value.to_owned());
        }
    }
    values
}

/// Whose token it is, or why nobody is let in.
pub async fn ask(
    configuration: &BTreeMap<String, String>,
    session: &str,
    token: &str,
    address: &str,
) -> Result<String, String> {
    let url = configuration.get("security/auth-token-verifier").filter(|url| !url.is_empty());
    let url = url.ok_or("no auth-token-verifier is configured")?;
    let mut client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(20));
    if configuration.get("security/no-tls-strict").is_some_and(|value| value == "true") {
        client = client.tls_danger_accept_invalid_certs(true);
    } else if let Some(file) = configuration.get("security/ca-file").filter(|file| !file.is_empty()) {
        let pem = fs::read(file).map_err(|error| format!("the ca-file cannot be read: {error}"))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| format!("the ca-file is broken: {error}"))?;
        client = client.tls_certs_only([authority]);
    }
    let client = client.build().map_err(|error| error.to_string())?;
    let fields = [("sessionId", session), ("authenticationToken", token), ("clientAddress", address)];
    let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let request = client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(form.join("&"));
    let answer = request.send().await.map_err(|error| format!("the verifier cannot be reached: {error:?}"))?;
    if answer.status().as_u16() != 200 {
        return Err(format!("the verifier answered {}", answer.status()));
    }
    verdict(&answer.text().await.map_err(|error| error.to_string())?)
}

fn encoded(value: &str) -> String {
    let one = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    value.bytes().map(one).collect()
}

fn verdict(text: &str) -> Result<String, String> {
    let between = |open: &str, close: &str| {
        let inner = text.trim().strip_prefix(open)?.strip_suffix(close)?;
        Some(inner.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    };
    match between("<auth result=\"yes\"><username>", "</username></auth>") {
        Some(user) => Ok(user),
        None => Err(between("<auth result=\"no\"><message>", "</message></auth>")
            .unwrap_or_else(|| "the verifier's answer cannot be understood".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_answers_are_understood_and_no_others() {
        assert_eq!(verdict("<auth result=\"yes\"><username>a&amp;b</username></auth>"), Ok("a&b".into()));
        assert_eq!(verdict("<auth result=\"no\"><message>token expired</message></auth>"), Err("token expired".into()));
        assert!(verdict("yes").is_err());
        assert_eq!(encoded("a+b/=ö"), "a%2Bb%2F%3D%C3%B6");
    }
}
