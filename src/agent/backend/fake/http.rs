//! The least of an HTTP/1.1 client over a Unix socket: one request at a time on a connection, answers with a length.
//!
//! By hand, as it is fifty lines and the alternative is a client stack for a test tool. Knows only what `fake-host` sends.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::UnixStream;

/// Largest answer that is read.
const MAX_BODY_BYTES: usize = 64 << 20;

/// A server, and connections to it that wait for their next use.
pub struct Connection {
    socket: PathBuf,
    idle: Mutex<Vec<BufReader<UnixStream>>>,
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// The server at `socket`. Connects when there is something to say.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), idle: Mutex::default() }
    }

    /// One call. A connection that the server has closed meanwhile is replaced: every call may be repeated.
    pub async fn call(&self, method: &str, path: &str, body: Option<&[u8]>) -> io::Result<Answer> {
        let idle = self.idle.lock().expect("nothing panics under the lock").pop();
        if let Some(stream) = idle
            && let Ok(answer) = self.exchange(stream, method, path, body).await
        {
            return Ok(answer);
        }
        let stream = BufReader::new(UnixStream::connect(&self.socket).await?);
        self.exchange(stream, method, path, body).await
    }

    async fn exchange(
        &self,
        mut stream: BufReader<UnixStream>,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let body = body.unwrap_or_default();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: fake-host\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("the host broke the connection"))?;
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        if length > MAX_BODY_BYTES {
            return Err(io::Error::other("the answer is too large"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        self.idle.lock().expect("nothing panics under the lock").push(stream);
        Ok(Answer { status, body })
    }
}

/// `text` as one segment of a path.
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_kind_fit_into_a_path() {
        assert_eq!(escaped("a-1/ü?"), "a-1%2F%C3%BC%3F");
    }
}
