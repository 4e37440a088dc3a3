//! The handshake with a desktop.

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use super::SECURITY_NONE;
use super::VERSION;
use super::Violation;
use super::is_true_colour;
use super::u16_at;
use super::u32_at;

/// Longest name of a desktop, and longest reason of a refusal.
const TEXT_BYTES_MAX: usize = 4096;

/// What the server said at the end of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInit {
    /// Width of the screen.
    pub width: u16,
    /// Height of the screen.
    pub height: u16,
    /// The whole message, to be passed on.
    pub message: Vec<u8>,
}

/// Why a server could not be talked to.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the connection to the desktop broke")]
    Io(#[from] std::io::Error),
    #[error("the desktop refused the connection: {0}")]
    Refused(String),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Does the handshake with a server, as a client that shares the desktop with others.
pub async fn connect<S>(stream: &mut S) -> Result<ServerInit, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if !version.starts_with(b"RFB 003.") {
        return Err(Violation("not an RFB server").into());
    }
    stream.write_all(VERSION).await?;
    let count = stream.read_u8().await?;
    if count == 0 {
        return Err(HandshakeError::Refused(read_text(stream).await?));
    }
    let mut types = vec![0; usize::from(count)];
    stream.read_exact(&mut types).await?;
    if !types.contains(&SECURITY_NONE) {
        return Err(Violation("the desktop asks for a password").into());
    }
    stream.write_all(&[SECURITY_NONE]).await?;
    if stream.read_u32().await? != 0 {
        return Err(HandshakeError::Refused(read_text(stream).await?));
    }
    stream.write_all(&[1]).await?;
    let mut message = vec![0; 24];
    stream.read_exact(&mut message).await?;
    if !is_true_colour(&message[4..20]) {
        return Err(Violation("the desktop is not in 32-bit true colour").into());
    }
    let length = usize::try_from(u32_at(&message, 20)).unwrap_or(usize::MAX);
    if length > TEXT_BYTES_MAX {
        return Err(Violation("the name of the desktop is too long").into());
    }
    message.resize(24 + length, 0);
    stream.read_exact(&mut message[24..]).await?;
    Ok(ServerInit { width: u16_at(&message, 0), height: u16_at(&message, 2), message })
}

async fn read_text<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, HandshakeError> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX).min(TEXT_BYTES_MAX);
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
