//! The part of the RFB protocol that a proxy with rights has to know: the handshake, and where messages end.
//!
//! Both directions are framed whole, so nothing passes that is not understood. The filters do no I/O, keep only what they
//! need, and are stepped by any chunking of the bytes. Client and server speak version 3.8 and 32-bit true colour, which
//! makes every length independent of the pixel format.
//!
//! Source: RFC 6143 and the community's `rfbproto.rst`.

mod client;
mod handshake;
mod server;

use crate::permissions::Features;

pub use client::ClientFilter;
pub use handshake::HandshakeError;
pub use handshake::connect;
pub use server::ServerFilter;

/// The version both sides speak.
pub(super) const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security type "None": the socket's folder and the agent are the lock.
pub(super) const SECURITY_NONE: u8 = 1;
/// The largest message that is held to be decided on: a clipboard of four million characters.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;

const RAW: i32 = 0;
const COPY_RECT: i32 = 1;
const TIGHT: i32 = 7;
const DESKTOP_SIZE: i32 = -223;
const LAST_RECT: i32 = -224;
const CURSOR: i32 = -239;
const QEMU_KEY: i32 = -258;
const LED_STATE: i32 = -261;
const DESKTOP_NAME: i32 = -307;
const EXTENDED_DESKTOP_SIZE: i32 = -308;
const FENCE: i32 = -312;
const CONTINUOUS_UPDATES: i32 = -313;
const VMWARE_CURSOR: i32 = 0x574d_5664;
const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();

const CLIPBOARD_CAPS: u32 = 1 << 24;
const CLIPBOARD_REQUEST: u32 = 1 << 25;
const CLIPBOARD_PEEK: u32 = 1 << 26;
#[cfg(test)]
const CLIPBOARD_NOTIFY: u32 = 1 << 27;
const CLIPBOARD_ACTIONS: u32 = 0xff00_0000;

/// Encodings a client may ask for: those whose bodies [`ServerFilter`] can frame and whose messages [`ClientFilter`] knows.
fn is_known_encoding(encoding: i32) -> bool {
    let jpeg_quality = -32..=-23;
    let compression = -256..=-247;
    jpeg_quality.contains(&encoding)
        || compression.contains(&encoding)
        || [
            RAW,
            COPY_RECT,
            TIGHT,
            DESKTOP_SIZE,
            LAST_RECT,
            CURSOR,
            QEMU_KEY,
            LED_STATE,
            DESKTOP_NAME,
            EXTENDED_DESKTOP_SIZE,
            FENCE,
            CONTINUOUS_UPDATES,
            VMWARE_CURSOR,
            EXTENDED_CLIPBOARD,
        ]
        .contains(&encoding)
}

/// What one connection may do. Read for every message, so that a change acts at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent rights")]
pub struct Rights {
    /// Move and click.
    pub pointer: bool,
    /// Type.
    pub keyboard: bool,
    /// Bring text in.
    pub paste: bool,
    /// Take text out.
    pub copy: bool,
    /// Change the size of the screen.
    pub resize: bool,
}

impl Rights {
    /// The rights that `features` give. Resizing is not a feature of its own: the owner may, and whoever works with mouse
    /// and keyboard.
    pub fn new(features: Features, is_owner: bool) -> Self {
        let pointer = features.intersects(Features::MOUSE.with(Features::TOUCH).with(Features::STYLUS));
        let keyboard = features.contains(Features::KEYBOARD);
        Self {
            pointer,
            keyboard,
            paste: features.contains(Features::CLIPBOARD_PASTE),
            copy: features.contains(Features::CLIPBOARD_COPY),
            resize: is_owner || (features.contains(Features::MOUSE) && keyboard),
        }
    }
}

/// A side broke the protocol, or uses a part of it that is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub &'static str);

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at).cast_signed()
}

/// Whether a pixel format has 32 bits a pixel and 8 a colour, so that Raw takes 4 bytes a pixel and Tight 3.
pub(super) fn is_true_colour(format: &[u8]) -> bool {
    let shifts = [format[10], format[11], format[12]];
    let [red, green, blue] = shifts;
    format[0] == 32
        && format[1] == 24
        && format[3] != 0
        && [4, 6, 8].iter().all(|at| u16_at(format, *at) == 255)
        && shifts.iter().all(|shift| shift % 8 == 0 && *shift <= 24)
        && red != green
        && green != blue
        && blue != red
}

/// Bytes of text or data behind the header of a cut text. A negative length marks the extended form.
fn cut_text_length(signed: i32) -> Result<usize, Violation> {
    let length = usize::try_from(signed.unsigned_abs()).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(Violation("clipboard is too large"));
    }
    if signed < 0 && length < 4 {
        return Err(Violation("clipboard message is too short"));
    }
    Ok(length)
}

fn is_harmless_action(flags: u32) -> bool {
    // Exactly one known action: what servers make of several is their choice.
    [CLIPBOARD_CAPS, CLIPBOARD_REQUEST, CLIPBOARD_PEEK].contains(&(flags & CLIPBOARD_ACTIONS))
}

#[cfg(test)]
mod tests;
