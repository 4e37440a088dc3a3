//! Screenshots by REST: what they show, of which size and format, and what happens when the agent ends meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::rest::Answer;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::unique;
use image::ImageFormat;
use image::RgbImage;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;

const UNREACHABLE: &str = "The agent of the session's server cannot be reached";

/// Where `hack/up` tells the agent of the stand to find programs.
const INIT_FOLDER: &str = "/var/lib/dcv-operator/dev/e2e-vnc/init";

/// A tenant: a namespace with a client.
async fn tenant(stand: &Stand, word: &str) -> (Sessions, LoggedIn) {
    let sessions = stand.namespace(word).await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    (sessions, client.log_in().await.expect("the client logs in"))
}

/// The one primary image of a successful item, in `format`.
fn image(item: &Value, id: &str, format: ImageFormat) -> RgbImage {
    let screenshot = &item["SessionScreenshot"];
    assert_eq!(screenshot["SessionId"], id, "{item}");
    let images = screenshot["Images"].as_array().unwrap_or_else(|| panic!("no images in {item}"));
    assert_eq!(images.len(), 1, "{item}");
    let word = if format == ImageFormat::Png { "png" } else { "jpeg" };
    assert_eq!((&images[0]["Format"], &images[0]["Primary"]), (&json!(word), &json!(true)));
    let time = images[0]["CreationTime"].as_str().expect("a time");
    assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    let bytes = STANDARD.decode(images[0]["Data"].as_str().expect("a text")).expect("it is base64");
    image::load_from_memory_with_format(&bytes, format).expect("it is an image of the format").into_rgb8()
}

/// Takes a screenshot that must be there.
async fn shoot(rest: &LoggedIn, item: Value, format: ImageFormat) -> RgbImage {
    let answer = rest.post("/getSessionScreenshots", &json!([item])).await;
    assert_eq!((answer.status, answer.successful().len()), (200, 1), "{answer:?}");
    image(&answer.successful()[0], item["SessionId"].as_str().expect("an id"), format)
}

/// Which part of a picture is about of this colour.
fn share(picture: &RgbImage, colour: [u8; 3]) -> f64 {
    let is_near = |pixel: &image::Rgb<u8>| pixel.0.iter().zip(colour).all(|(one, other)| one.abs_diff(other) < 40);
    let near = picture.pixels().filter(|pixel| is_near(pixel)).count();
    f64::from(u32::try_from(near).expect("a small picture")) / f64::from(picture.width() * picture.height())
}

/// A program for desktops of the stand, gone at the end with the file it waits for.
struct Program {
    file: PathBuf,
    signal: PathBuf,
}

impl Program {
    /// A screen that is red, and blue from [`Self::turn`] on.
    fn red_then_blue() -> Self {
        let name = unique("colours");
        let program = Self { file: Path::new(INIT_FOLDER).join(&name), signal: Path::new("/home/ann").join(&name) };
        let script = format!(
            "#!/bin/sh\nexec xterm -geometry 400x150+0+0 -b 0 -bw 0 +sb -uc -bg '#ff0000' -fg '#ff0000' -cr '#ff0000' \
             -e sh -c 'until [ -e {} ]; do sleep 0.1; done; printf \"\\033]11;#0000ff\\007\"; sleep 1000'\n",
            program.signal.display()
        );
        fs::write(&program.file, script).expect("root writes programs");
        fs::set_permissions(&program.file, fs::Permissions::from_mode(0o755)).expect("root writes programs");
        program
    }

    fn name(&self) -> &str {
        self.file.file_name().and_then(|name| name.to_str()).expect("a name of ours")
    }

    fn turn(&self) {
        fs::write(&self.signal, "").expect("root writes everywhere");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.signal);
    }
}

#[tokio::test]
async fn a_screenshot_shows_what_is_on_the_screen_now_in_the_size_and_format_asked_for() {
    const RED: [u8; 3] = [255, 0, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    let stand = Stand::vnc().await;
    let (sessions, rest) = tenant(&stand, "screenshots").await;
    let program = Program::red_then_blue();
    let item = json!({"Name": "colours", "Owner": "ann", "Type": "VIRTUAL", "InitFile": program.name()});
    let id = rest.create(item).await;
    rest.until_state(&id, "READY").await;
    let until_it_is = async |colour| {
        eventually("the screen to have its colour", seconds(20), async || {
            let picture = shoot(&rest, json!({"SessionId": id}), ImageFormat::Png).await;
            assert_eq!(picture.dimensions(), (160, 90), "it fits into 160 x 100");
            let share = share(&picture, colour);
            if share > 0.9 { Ok(()) } else { Err(format!("{share} of it is {colour:?}")) }
        })
        .await;
    };
    until_it_is(RED).await;
    program.turn();
    until_it_is(BLUE).await;

    for (sizes, expected) in [
        (json!({"MaxWidth": 10_000, "MaxHeight": 10_000}), (1920, 1080)),
        (json!({"MaxWidth": 480, "MaxHeight": 480}), (480, 270)),
        (json!({"MaxWidth": 10_000}), (178, 100)),
        (json!({"MaxHeight": 10_000}), (160, 90)),
        (json!({"MaxWidth": null, "MaxHeight": null}), (160, 90)),
    ] {
        let mut item = sizes;
        item["SessionId"] = json!(id);
        let picture = shoot(&rest, item.clone(), ImageFormat::Png).await;
        assert_eq!(picture.dimensions(), expected, "{item}");
        assert!(share(&picture, BLUE) > 0.9, "{item}");
    }

    let flags = [
        "--session-screenshot-format=jpeg",
        "--session-screenshot-max-width=320",
        "--session-screenshot-max-height=320",
    ];
    let jpeg = stand.role("broker-1").kill().await.restart_with(&flags).await;
    until_it_answers(&rest).await;
    let picture = shoot(&rest, json!({"SessionId": id}), ImageFormat::Jpeg).await;
    assert_eq!(picture.dimensions(), (320, 180));
    assert!(share(&picture, BLUE) > 0.9);
    jpeg.kill().await.restart_without(&flags).await;
    until_it_answers(&rest).await;

    rest.delete(&id, "ann").await;
    let answer = rest.post("/getSessionScreenshots", &json!([{"SessionId": id}])).await;
    let expected = json!({"GetSessionScreenshotRequestData": {"SessionId": id},
        "FailureReason": format!("Session {id} is not in READY state")});
    assert_eq!((answer.status, answer.unsuccessful()), (200, &vec![expected]));
    sessions.delete_namespace().await;
}

/// An allocator left to itself keeps two pictures' worth or more for each thread, for ever.
#[tokio::test]
async fn pictures_leave_no_memory_behind() {
    let stand = Stand::vnc().await;
    let (sessions, rest) = tenant(&stand, "memory").await;
    stand.role("agent-1").kill().await.restart().await;
    let id = rest.create(json!({"Name": "desk", "Owner": "ann", "Type": "VIRTUAL"})).await;
    rest.until_state(&id, "READY").await;
    let agent = stand.role("agent-1").pid();
    let item = json!({"SessionId": id, "MaxWidth": 10_000, "MaxHeight": 10_000});
    let before = host::own_mib(agent);
    for _ in 0..5 {
        futures::future::join_all((0..8).map(|_| shoot(&rest, item.clone(), ImageFormat::Png))).await;
    }
    let left = host::own_mib(agent) - before;
    let picture = 1920.0 * 1080.0 * 3.0 / 1024.0 / 1024.0;
    assert!(left < picture, "{left} MiB are left of 40 pictures of {picture} MiB");
    rest.delete(&id, "ann").await;
    sessions.delete_namespace().await;
}

async fn until_it_answers(rest: &LoggedIn) {
    eventually("the broker to be back", seconds(20), async || {
        let answer = rest.try_post("/describeSessions", &json!({})).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// Every session's screenshot, in batches of five under way at once, as portals ask for them.
async fn shoot_all(rest: &LoggedIn, ids: &[String]) -> Vec<Answer> {
    let batches = ids.chunks(5).map(|batch| async move {
        let items: Vec<_> = batch.iter().map(|id| json!({"SessionId": id})).collect();
        let answer = rest.post("/getSessionScreenshots", &json!(items)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.successful().len() + answer.unsuccessful().len(), batch.len(), "{answer:?}");
        answer
    });
    futures::future::join_all(batches).await
}

#[tokio::test]
async fn thirty_sessions_are_taken_in_fives_and_an_agent_that_ends_fails_its_items_until_it_is_back() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "thirty").await;
    let items: Vec<_> = (0..30)
        .map(|number| (number, ["ann", "bob", "cid"][number % 3]))
        .map(|(number, owner)| json!({"Name": format!("desk {number}"), "Owner": owner, "Type": "VIRTUAL"}))
        .collect();
    let made = rest.post("/createSessions", &json!(items)).await;
    assert_eq!(made.successful().len(), 30, "{made:?}");
    let ids: Vec<_> =
        made.successful().iter().map(|session| session["Id"].as_str().expect("an id").to_owned()).collect();
    for id in &ids {
        rest.until_state(id, "READY").await;
    }
    let all = async || {
        let answers = shoot_all(&rest, &ids).await;
        let taken: Vec<_> = answers.iter().flat_map(Answer::successful).cloned().collect();
        let failed: Vec<_> = answers.iter().flat_map(Answer::unsuccessful).cloned().collect();
        (taken, failed)
    };
    let (taken, failed) = all().await;
    assert_eq!(failed, Vec::<Value>::new());
    let mut pictures = BTreeSet::new();
    for (item, id) in taken.iter().zip(&ids) {
        let picture = image(item, id, ImageFormat::Png);
        assert_eq!(picture.dimensions(), (160, 90));
        pictures.insert(picture.into_raw());
    }
    assert_eq!(pictures.len(), 30, "each session's screen is its own");

    // All servers of this stand are one process. What it had begun fails, and so does what comes before it is back.
    let begun = Instant::now();
    let (killed, ()) = tokio::join!(stand.role("agent-1").kill(), async {
        for _ in 0..5 {
            all().await;
        }
    });
    let (taken, failed) = all().await;
    assert_eq!((taken.len(), failed.len()), (0, 30));
    for (item, id) in failed.iter().zip(&ids) {
        let expected = json!({"GetSessionScreenshotRequestData": {"SessionId": id}, "FailureReason": UNREACHABLE});
        assert_eq!(item, &expected);
    }
    assert!(begun.elapsed() < seconds(25), "{:?}", begun.elapsed());
    killed.restart().await;
    eventually("all to be taken again", seconds(60), async || {
        let (taken, failed) = all().await;
        if taken.len() == 30 { Ok(()) } else { Err(format!("{failed:?}")) }
    })
    .await;
    sessions.delete_namespace().await;
}

/// A process that stands still until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Self {
        host::signal(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        host::signal(self.0, Signal::SIGCONT);
    }
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_in_time_and_asked_again_later() {
    let stand = Stand::fake().await;
    let (sessions, rest) = tenant(&stand, "hangs").await;
    let id = rest.create(json!({"Name": "mine", "Owner": "ann", "Type": "VIRTUAL"})).await;
    rest.until_state(&id, "READY").await;
    for _ in 0..2 {
        shoot(&rest, json!({"SessionId": id}), ImageFormat::Png).await;
        let stopped = Stopped::new(stand.role("agent-1").pid());
        let begun = Instant::now();
        let answer = rest.post("/getSessionScreenshots", &json!([{"SessionId": id}, {"SessionId": id}])).await;
        assert_eq!((answer.status, answer.unsuccessful().len()), (200, 2), "{answer:?}");
        for failed in answer.unsuccessful() {
            assert_eq!(failed["FailureReason"], "The screenshot was not taken in time, try again", "{failed}");
        }
        assert!(begun.elapsed() < seconds(15), "{:?}", begun.elapsed());
        drop(stopped);
    }
    shoot(&rest, json!({"SessionId": id}), ImageFormat::Png).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_tenant_takes_no_pictures_of_anothers_sessions() {
    let stand = Stand::fake().await;
    let (one_sessions, one) = tenant(&stand, "screen-one").await;
    let (two_sessions, two) = tenant(&stand, "screen-two").await;
    let id = one.create(json!({"Name": "mine", "Owner": "ann", "Type": "VIRTUAL"})).await;
    one.until_state(&id, "READY").await;
    for id in [id.clone(), uuid::Uuid::new_v4().to_string(), "console".to_owned()] {
        let item = json!({"SessionId": id, "MaxWidth": 10, "MaxHeight": 20});
        let answer = two.post("/getSessionScreenshots", &json!([item])).await;
        let expected = json!({"GetSessionScreenshotRequestData": item, "FailureReason": "Dcv session not found."});
        assert_eq!((answer.status, answer.unsuccessful()), (200, &vec![expected]));
    }
    shoot(&one, json!({"SessionId": id}), ImageFormat::Png).await;
    one_sessions.delete_namespace().await;
    two_sessions.delete_namespace().await;
}
