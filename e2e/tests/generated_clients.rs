//! Clients as users get them: generated from the file that a running broker serves. The guide's examples and a session's
//! life must work with them unchanged.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use e2e::Stand;
use e2e::clients;
use e2e::seconds;
use tokio::process::Command;

/// Stores the file that the brokers serve in `folder`.
async fn api_file(stand: &Stand, folder: &Path) -> PathBuf {
    let (status, _, text) = stand.rest().text("/dcv-session-manager-api.yaml").await;
    assert_eq!(status, 200, "{text}");
    let file = folder.join("dcv-session-manager-api.yaml");
    fs::write(&file, text).expect("the file can be written");
    file
}

/// Hands a driver program the settings of the stand.
fn configure(command: &mut Command, stand: &Stand) {
    for key in ["BROKER_URL", "BROKER_CA", "CLIENT_ID", "CLIENT_SECRET", "OWNER", "OTHER_OWNER"] {
        command.env(key, stand.setting(key));
    }
}

#[tokio::test]
async fn a_python_client_of_swagger_codegen_does_all_that_the_guide_shows() {
    let stand = Stand::fake().await;
    let folder = clients::scratch("client-python");
    let mut generate = clients::generator("swagger-codegen-cli");
    generate.args(["generate", "-l", "python", "-i"]).arg(api_file(&stand, &folder).await).arg("-o").arg(&folder);
    clients::run("swagger-codegen", seconds(120), generate).await;
    let mut life = clients::python("python");
    life.env("PYTHONPATH", &folder).arg(clients::drivers().join("life.py"));
    configure(&mut life, &stand);
    clients::run("life.py", seconds(120), life).await;
}

#[tokio::test]
async fn a_java_client_of_openapi_generator_finds_nothing_that_it_does_not_know() {
    let stand = Stand::fake().await;
    let folder = clients::scratch("client-java");
    let mut generate = clients::generator("openapi-generator-cli");
    generate
        .args(["generate", "-g", "java", "--library", "okhttp-gson"])
        .args(["--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false", "-i"])
        .arg(api_file(&stand, &folder).await)
        .arg("-o")
        .arg(&folder);
    clients::run("openapi-generator", seconds(120), generate).await;
    let mut sources = clients::files(&folder.join("src/main/java"), "java");
    sources.push(clients::drivers().join("Life.java"));
    let classes = folder.join("classes");
    clients::run("javac", seconds(180), clients::javac(&sources, &classes)).await;
    let mut life = clients::java("Life", &classes);
    configure(&mut life, &stand);
    clients::run("Life", seconds(120), life).await;
}
