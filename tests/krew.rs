//! The krew manifest has the shape that krew takes, and `hack/krew` fills it in.
//!
//! Source: "Writing Krew plugin manifests" and "Plugin naming guide" in the Krew documentation.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What every manifest must be like.
fn check(manifest: &Value) {
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Plugin".into(), &"dcv".into()));
    let spec = &manifest["spec"];
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.contains("kubectl") && !short.ends_with('.'), "{short}");
    for long in ["description", "caveats"] {
        let text = spec[long].as_str().unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{long}: {text}");
    }
    let platforms = spec["platforms"].as_array().unwrap();
    let mut seen = Vec::new();
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        let (os, arch) = (labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap());
        let uri = platform["uri"].as_str().unwrap();
        assert!(uri.ends_with(&format!("/kubectl-dcv-{os}-{arch}.tar.gz")), "{uri}");
        assert_eq!(platform["bin"], "kubectl-dcv");
        let files: Vec<_> = platform["files"].as_array().unwrap().iter().map(|file| file["from"].as_str()).collect();
        assert_eq!(files, [Some("kubectl-dcv"), Some("LICENSE")]);
        seen.push(format!("{os}-{arch}"));
    }
    assert_eq!(seen, ["linux-amd64", "linux-arm64"]);
}

fn read(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn fill(folder: &Path, version: &str) -> Output {
    Command::new(root().join("hack/krew"))
        .args(["--version", version, "--homepage", "https://dcv.example", "--base-url", "https://dcv.example/v1/"])
        .arg(folder)
        .output()
        .unwrap()
}

/// Archives with these files, one for each platform.
fn archives(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in files {
        fs::write(folder.path().join(name), name).unwrap();
    }
    for platform in ["linux-amd64", "linux-arm64"] {
        let archive = folder.path().join(format!("kubectl-dcv-{platform}.tar.gz"));
        let made = Command::new("tar").arg("-C").arg(folder.path()).arg("-czf").arg(archive).args(files).status();
        assert!(made.unwrap().success());
    }
    folder
}

#[test]
fn the_template_has_krews_shape() {
    check(&read(&fs::read_to_string(root().join("contrib/krew/dcv.yaml")).unwrap()));
}

#[test]
fn a_release_fills_it_in() {
    let folder = archives(&["kubectl-dcv", "LICENSE"]);
    let output = fill(folder.path(), "v1.2.3");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains('@'), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let manifest = read(&text);
    check(&manifest);
    let platform = &manifest["spec"]["platforms"][0];
    assert_eq!(platform["uri"], "https://dcv.example/v1/kubectl-dcv-linux-amd64.tar.gz");
    let archive = folder.path().join("kubectl-dcv-linux-amd64.tar.gz");
    let sum = Command::new("sha256sum").arg(archive).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    assert_eq!(platform["sha256"].as_str(), sum.split(' ').next());
}

#[test]
fn what_krew_would_refuse_is_refused_here() {
    let refused = |folder: &Path, version: &str| {
        let output = fill(folder, version);
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let whole = archives(&["kubectl-dcv", "LICENSE"]);
    assert!(refused(whole.path(), "1.2.3").contains("--version"));
    assert!(refused(archives(&["kubectl-dcv"]).path(), "v1.2.3").contains("has no LICENSE"));
    assert!(refused(tempfile::tempdir().unwrap().path(), "v1.2.3").contains("is missing"));
}
