//! `kubectl dcv screenshot`: what is on a session's screen, in the terminal or in a file.
//!
//! A broker takes the picture, as for `get-session-screenshots`: who may see what is its business. Escape codes go to a
//! terminal that is known to understand them, and never into a pipe or a file.

mod terminal;

use std::fs;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Deserialize;

use super::args::ConnectionArgs;
use super::broker;
use super::broker::Call;
use super::broker::GetSessionScreenshots;
use super::broker::Options;
use super::connection;
use super::ending;
use super::ending::Fault;
use super::ending::Origin;
use super::error;
use super::interrupted;
use super::near;
use terminal::Protocol;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
A broker is asked as by get-session-screenshots: see its options and dcvsmcli.conf. A session by name takes the right to get it; \
with --session-id nothing is asked of the cluster.

In a terminal of kitty, Ghostty, Konsole, WezTerm, iTerm2 or mintty the picture is shown there, unless -o names a file or --show \
says otherwise. Elsewhere it is written to SESSION.png (or .jpeg, as the broker is set), which must not be there; -o - writes it \
to a pipe. Under tmux and screen, which keep pictures to themselves, it is written too.

Exit code: as of the commands that ask a broker; 1 when the API server does not answer or a file cannot be written; 130 \
interrupted.

Examples:
  kubectl dcv screenshot desk -n team-a
  kubectl dcv screenshot desk -o desk.png --max-width 1920 --max-height 1080
  kubectl dcv screenshot --session-id 0b1c… -o - | convert - -resize 50% small.png";

/// Which session, and where to.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Screenshot {
    /// Name of a DcvSession
    #[arg(value_name = "SESSION", required_unless_present = "session_id", conflicts_with = "session_id")]
    pub session: Option<String>,
    /// Id of a session, which takes no right in the cluster
    #[arg(long, value_name = "ID")]
    pub session_id: Option<String>,
    /// Write the picture to this file, in place of what is there; - writes it to a pipe
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to show it in the terminal; none: write it to a file
    #[arg(long, value_enum, default_value_t, conflicts_with = "output")]
    pub show: Show,
    /// Widest picture, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 1280, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_width: u16,
    /// Highest picture, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 800, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_height: u16,
}

/// How a picture is shown.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Show {
    /// As the terminal can, if it is known
    #[default]
    Auto,
    /// By kitty's graphics protocol
    Kitty,
    /// By the inline images of `iTerm2`
    Iterm,
    /// Not at all
    None,
}

/// What stopped the command.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cluster(#[from] error::Error),
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Told(String),
}

impl Fault for Error {
    fn origin(&self) -> Origin<'_> {
        match self {
            Self::Cluster(error) => Origin::Cluster(error),
            Self::Broker(error) => Origin::Broker(error),
            Self::Interrupted => Origin::Interrupted,
            Self::Told(_) => Origin::Own,
        }
    }
}

/// Takes the picture, and says how that went by the exit code.
pub(super) fn run(connection: &ConnectionArgs, options: &Options, wanted: &Screenshot) -> ExitCode {
    ending::run(screenshot(connection, options, wanted))
}

async fn screenshot(connection: &ConnectionArgs, options: &Options, wanted: &Screenshot) -> Result<(), Error> {
    let is_terminal = io::stdout().is_terminal();
    if is_terminal && wanted.output.as_deref() == Some(Path::new(PIPE)) {
        return Err(Error::Told("a picture is nothing for a terminal; name a file, or write into a pipe".to_owned()));
    }
    let taken = async {
        let (id, name) = target(connection, wanted).await?;
        let which = GetSessionScreenshots {
            session_ids: vec![id],
            max_width: Some(wanted.max_width.into()),
            max_height: Some(wanted.max_height.into()),
        };
        let limit = Some(connection.request_timeout).filter(|limit| !limit.is_zero());
        let answer = broker::ask(options, &Call::GetSessionScreenshots(which), limit).await?;
        Ok::<_, Error>((picture(&answer)?, name))
    };
    let (picture, name) = tokio::select! {
        taken = taken => taken?,
        () = interrupted() => return Err(Error::Interrupted),
    };
    let protocol = match (wanted.show, is_terminal) {
        _ if wanted.output.is_some() => None,
        (_, false) | (Show::None, _) => None,
        (Show::Auto, true) => terminal::detect(&terminal::Environment::read()),
        (Show::Kitty, true) => Some(Protocol::Kitty),
        (Show::Iterm, true) => Some(Protocol::Iterm),
    };
    match (protocol, &wanted.output) {
        (Some(protocol), _) => show(protocol, &picture),
        (None, Some(file)) if file == Path::new(PIPE) => print(&picture.bytes),
        (None, Some(file)) => write(file, &picture.bytes, true),
        (None, None) => write(Path::new(&format!("{name}.{}", picture.format)), &picture.bytes, false),
    }
}

/// What stands for standard output.
const PIPE: &str = "-";

/// Id and name of the session.
async fn target(connection: &ConnectionArgs, wanted: &Screenshot) -> Result<(String, String), Error> {
    if let Some(id) = &wanted.session_id {
        return Ok((id.clone(), id.chars().map(|c| if c == '/' { '-' } else { c }).collect()));
    }
    let (client, namespace) = connection::client(connection).await?;
    let name = near::bare(wanted.session.as_deref().unwrap_or_default());
    let session = near::session(&client, &namespace, name).await?;
    Ok((session.id().to_owned(), name.to_owned()))
}

/// A picture as the broker has it.
#[derive(Debug, PartialEq)]
struct Picture {
    /// png or jpeg.
    format: String,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    successful_list: Vec<Taken>,
    #[serde(default)]
    unsuccessful_list: Vec<Failed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Taken {
    session_screenshot: Images,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    format: String,
    data: String,
    #[serde(default)]
    primary: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    failure_reason: String,
}

/// The picture of the first screen in a broker's answer.
fn picture(answer: &str) -> Result<Picture, Error> {
    let strange = |fault: String| broker::Error::Other(format!("the broker's answer is not understood: {fault}"));
    let answer: Answer = serde_json::from_str(answer).map_err(|error| strange(error.to_string()))?;
    if let Some(failed) = answer.unsuccessful_list.first() {
        let text = failed.failure_reason.chars().filter(|c| !c.is_control()).collect();
        return Err(broker::Error::Refused { who: "the broker", status: 200, text }.into());
    }
    let mut images: Vec<_> = answer.successful_list.into_iter().flat_map(|it| it.session_screenshot.images).collect();
    images.sort_by_key(|image| !image.primary);
    let image = images.into_iter().next().ok_or_else(|| strange("there is no picture in it".to_owned()))?;
    let bytes = STANDARD.decode(&image.data).map_err(|error| strange(error.to_string()))?;
    let format = if image.format.eq_ignore_ascii_case("png") { "png" } else { "jpeg" };
    Ok(Picture { format: format.to_owned(), bytes })
}

fn show(protocol: Protocol, picture: &Picture) -> Result<(), Error> {
    let codes = match protocol {
        // Which knows no other format.
        Protocol::Kitty if picture.format != "png" => terminal::codes(protocol, &as_png(&picture.bytes)?),
        _ => terminal::codes(protocol, &picture.bytes),
    };
    print(codes.as_bytes())
}

fn as_png(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let cannot = |error: image::ImageError| Error::Told(format!("the picture cannot be read: {error}"));
    let mut png = io::Cursor::new(Vec::new());
    image::load_from_memory(bytes).map_err(cannot)?.write_to(&mut png, image::ImageFormat::Png).map_err(cannot)?;
    Ok(png.into_inner())
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::Cluster(error::Error::Output(error)))
}

/// What is on a screen is for whoever asked.
fn write(file: &Path, bytes: &[u8], replace: bool) -> Result<(), Error> {
    let mut options = fs::File::options();
    options.write(true).mode(0o600);
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(file).and_then(|mut open| open.write_all(bytes));
    let shown = file.display();
    match written {
        Ok(()) => {
            let _ = writeln!(io::stderr(), "written to {shown}");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Told(format!("{shown} is there already; -o {shown} replaces it")))
        }
        Err(error) => Err(Error::Told(format!("cannot write {shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_screen_is_taken_and_a_failure_told() {
        let image =
            |data: &str, primary: bool| json!({"Format": "png", "Data": STANDARD.encode(data), "Primary": primary});
        let images = json!([image("second", false), image("first", true)]);
        let answer = json!({"SuccessfulList": [{"SessionScreenshot": {"SessionId": "a", "Images": images}}], "UnsuccessfulList": []});
        let taken = picture(&answer.to_string()).unwrap();
        assert_eq!(taken, Picture { format: "png".into(), bytes: b"first".to_vec() });
        let failed =
            json!({"SuccessfulList": [], "UnsuccessfulList": [{"FailureReason": "Dcv session not found.\u{1b}"}]});
        let error = picture(&failed.to_string()).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.words().as_str()),
            (254, "error: the broker answered 200: Dcv session not found.")
        );
        assert_eq!(picture("{}").unwrap_err().exit_code(), 255);
    }

    #[test]
    fn a_file_of_ours_is_for_us_alone_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("desk.png");
        write(&file, b"one", false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&file, b"two", false).unwrap_err();
        assert!(error.to_string().contains("replaces it"), "{error}");
        write(&file, b"2", true).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
    }

    #[test]
    fn a_jpeg_is_made_a_png_where_it_must_be() {
        let mut jpeg = io::Cursor::new(Vec::new());
        image::RgbImage::new(2, 2).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
        let png = as_png(&jpeg.into_inner()).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert!(as_png(b"nonsense").is_err());
    }
}
