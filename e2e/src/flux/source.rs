//! What a kustomize-controller needs of a source-controller: each new commit of a repository's branch as an archive that can
//! be fetched, named in the status of its `GitRepository`. No tags, no verification, no credentials.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ApiResource;
use kube::api::DynamicObject;
use kube::api::GroupVersionKind;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::flux::repository::try_git;
use crate::now;

/// How often repositories are asked, whatever their `interval`: as if each push were told by a hook.
const PERIOD: std::time::Duration = std::time::Duration::from_millis(500);

/// An archive of a commit.
struct Archive {
    revision: String,
    path: String,
    digest: String,
    size: usize,
}

/// Publishes in `folder`, which is served under `url`, until it is aborted.
pub(super) async fn run(client: Client, folder: PathBuf, url: String) {
    fs::create_dir_all(&folder).expect("there is room for a folder");
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", "GitRepository"));
    loop {
        let all = Api::<DynamicObject>::all_with(client.clone(), &kind);
        // What fails, as while the API server is busy, is tried again.
        for repository in all.list(&ListParams::default()).await.into_iter().flatten() {
            let status = match publish(&repository, &folder).await {
                Ok(None) => continue,
                Ok(Some(archive)) => status(&repository, &archive, &url),
                Err(why) => {
                    eprintln!("GitRepository {}: {why}", repository.name_any());
                    continue;
                }
            };
            let namespace = repository.namespace().unwrap_or_default();
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &kind);
            let patch = Patch::Merge(json!({"status": status}));
            // It may have been deleted meanwhile.
            let _ = api.patch_status(&repository.name_any(), &PatchParams::default(), &patch).await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Packs the newest commit, unless it is published already.
async fn publish(repository: &DynamicObject, folder: &Path) -> Result<Option<Archive>, String> {
    let data = &repository.data;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (url, branch) = (text(&data["spec"]["url"]), text(&data["spec"]["ref"]["branch"]));
    let head = try_git(&["ls-remote", &url, &format!("refs/heads/{branch}")]).await?;
    let commit = head.split_whitespace().next().ok_or(format!("{url} has no branch {branch}"))?.to_owned();
    let revision = format!("{branch}@sha1:{commit}");
    let is_observed = data["status"]["observedGeneration"].as_i64() == repository.metadata.generation;
    if is_observed && data["status"]["artifact"]["revision"] == revision.as_str() {
        return Ok(None);
    }
    let clone = tempfile::tempdir().map_err(|error| error.to_string())?;
    let clone = clone.path().to_str().ok_or("a folder's name is no text")?;
    try_git(&["clone", "--quiet", "--bare", "--branch", &branch, &url, clone]).await?;
    let path = format!("{commit}.tar.gz");
    let file = folder.join(&path);
    let output = file.to_str().ok_or("a file's name is no text")?;
    // Of the tree, not the commit: so there is nothing but files in it.
    let tree = format!("{commit}^{{tree}}");
    try_git(&["-C", clone, "archive", "--format=tar.gz", "--output", output, &tree]).await?;
    let bytes = fs::read(&file).map_err(|error| error.to_string())?;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    Ok(Some(Archive { revision, path, digest, size: bytes.len() }))
}

fn status(repository: &DynamicObject, archive: &Archive, url: &str) -> Value {
    let Archive { revision, path, digest, size } = archive;
    let generation = repository.metadata.generation;
    let time = now().to_string();
    json!({
        "observedGeneration": generation,
        "artifact": {
            "revision": revision, "digest": digest, "size": size, "path": path, "url": format!("{url}/{path}"),
            "lastUpdateTime": time,
        },
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Succeeded", "observedGeneration": generation,
            "message": format!("stored artifact for revision '{revision}'"), "lastTransitionTime": time,
        }],
    })
}
