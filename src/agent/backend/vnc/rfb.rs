//! The part of the RFB protocol that a proxy with rights has to know: the handshake, and where messages end.
//!
//! Both directions are framed whole, so nothing passes that is not understood. The filters do no I/O, keep only what they
//! need, and are stepped by any chunking of the bytes. Client and server speak version 3.8 and 32-bit true colour, which
//! makes every length independent of the pixel format.
//!
//! Source: RFC 6143 and the community's `rfbproto.rst`.

use std::collections::BTreeSet;
use std::ops::Range;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use crate::permissions::Features;

/// The version both sides speak.
pub(super) const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security type "None": the socket's folder and the agent are the lock.
pub(super) const SECURITY_NONE: u8 = 1;
/// The largest message that is held to be decided on: a clipboard of four million characters.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Keys held down at once; what goes beyond is not released at withdrawal.
const KEYS_MAX: usize = 256;
/// Longest name of a desktop, and longest reason of a refusal.
const TEXT_BYTES_MAX: usize = 4096;

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

/// Lets through what a client may send, to the server.
#[derive(Debug, Default)]
pub struct ClientFilter {
    /// The start of a message whose rest has not come yet.
    buffer: Vec<u8>,
    /// Keys that are down in the session: the message that would release each.
    keys: BTreeSet<Vec<u8>>,
    /// Buttons that are down, and where the pointer is.
    pointer: (u8, [u8; 4]),
}

impl ClientFilter {
    /// Takes bytes of the client, in any chunking, and appends to `out` what the server gets.
    ///
    /// # Errors
    /// What the client did that ends the connection. `out` then holds what was good before it.
    pub fn push(&mut self, input: &[u8], rights: Rights, out: &mut Vec<u8>) -> Result<(), Violation> {
        self.buffer.extend_from_slice(input);
        // Taken and put back, not copied: a large message may come in many small pieces.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        let outcome = loop {
            let rest = &buffer[done..];
            match client_message_length(rest) {
                Ok(Some(length)) if rest.len() >= length => {
                    done += length;
                    if let Err(violation) = self.pass(&rest[..length], rights, out) {
                        break Err(violation);
                    }
                }
                Ok(_) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        buffer.drain(..done);
        self.buffer = buffer;
        outcome
    }

    /// Appends releases of the keys and buttons that are down and that `rights` no longer cover.
    pub fn release(&mut self, rights: Rights, out: &mut Vec<u8>) {
        if !rights.keyboard {
            for release in std::mem::take(&mut self.keys) {
                out.extend(release);
            }
        }
        let (buttons, position) = self.pointer;
        if !rights.pointer && buttons != 0 {
            out.extend([5, 0]);
            out.extend(position);
            self.pointer.0 = 0;
        }
    }

    /// One whole message.
    fn pass(&mut self, message: &[u8], rights: Rights, out: &mut Vec<u8>) -> Result<(), Violation> {
        let allowed = match message[0] {
            0 if !is_true_colour(&message[4..]) => return Err(Violation("only 32-bit true colour is offered")),
            2 => {
                rewrite_encodings(message, out);
                return Ok(());
            }
            4 => rights.keyboard && self.key(message, 1..2),
            5 => {
                if rights.pointer {
                    self.pointer = (message[1], [message[2], message[3], message[4], message[5]]);
                }
                rights.pointer
            }
            6 => rights.paste || is_harmless_cut_text(message, CLIPBOARD_NOTIFY),
            // xvp: shutting the machine down is nobody's right.
            250 => false,
            251 => rights.resize,
            255 => rights.keyboard && self.key(message, 2..4),
            _ => true,
        };
        if allowed {
            out.extend_from_slice(message);
        }
        Ok(())
    }

    /// Notes a key that goes down or up; the bytes at `down` say which. Always true.
    fn key(&mut self, message: &[u8], down: Range<usize>) -> bool {
        let is_down = message[down.clone()].iter().any(|byte| *byte != 0);
        let mut release = message.to_vec();
        release[down].fill(0);
        if !is_down {
            self.keys.remove(&release);
        } else if self.keys.len() < KEYS_MAX {
            self.keys.insert(release);
        }
        true
    }
}

/// Length of the message that `start` begins; `None` while too little of it is there to tell.
fn client_message_length(start: &[u8]) -> Result<Option<usize>, Violation> {
    let Some(kind) = start.first() else { return Ok(None) };
    let known = |at: usize| start.len() > at;
    let length = match kind {
        0 => 20,
        2 if !known(3) => return Ok(None),
        2 => 4 + 4 * usize::from(u16_at(start, 2)),
        3 | 150 => 10,
        4 => 8,
        5 => 6,
        6 if !known(7) => return Ok(None),
        6 => 8 + cut_text_length(i32_at(start, 4))?,
        248 if !known(8) => return Ok(None),
        248 if start[8] > 64 => return Err(Violation("fence is too long")),
        248 => 9 + usize::from(start[8]),
        250 => 4,
        251 if !known(6) => return Ok(None),
        251 => 8 + 16 * usize::from(start[6]),
        255 if !known(1) => return Ok(None),
        255 if start[1] == 0 => 12,
        _ => return Err(Violation("unknown message")),
    };
    Ok(Some(length))
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

/// Whether a cut text of the extended form carries no content: it only says or asks what there is. `also` is the one
/// action that is harmless in this direction only.
fn is_harmless_cut_text(message: &[u8], also: u32) -> bool {
    i32_at(message, 4) < 0 && is_harmless_action(u32_at(message, 8), also)
}

fn is_harmless_action(flags: u32, also: u32) -> bool {
    // Exactly one known action: what servers make of several is their choice.
    [CLIPBOARD_CAPS, CLIPBOARD_REQUEST, CLIPBOARD_PEEK, also].contains(&(flags & CLIPBOARD_ACTIONS))
}

fn rewrite_encodings(message: &[u8], out: &mut Vec<u8>) {
    let kept: Vec<&[u8]> = message[4..].chunks_exact(4).filter(|four| is_known_encoding(i32_at(four, 0))).collect();
    // At most as many as came, so it fits.
    let count = u16::try_from(kept.len()).unwrap_or(u16::MAX);
    out.extend([2, 0]);
    out.extend(count.to_be_bytes());
    out.extend(kept.concat());
}

/// Lets through what the server sends, to the client: all but the clipboard of those who may not copy.
#[derive(Debug)]
pub struct ServerFilter {
    state: State,
    /// The header being collected, and how long it gets.
    head: Vec<u8>,
    need: usize,
    /// Bytes of a body that go through, or are left out.
    pass: u64,
    skip: u64,
    /// Rectangles of the update that are still to come, and the size of the current one.
    rectangles: u16,
    width: u64,
    height: u64,
    /// Bytes a Tight rectangle has before compression.
    tight_bytes: u64,
}

/// What the header being collected is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Message,
    Update,
    Rectangle,
    TightControl,
    TightFilter,
    TightPalette,
    TightLength,
    DesktopName,
    Screens,
    VmwareCursor,
    CutText,
    CutTextFlags,
    Fence,
}

impl Default for ServerFilter {
    fn default() -> Self {
        Self {
            state: State::Message,
            head: Vec::new(),
            need: 1,
            pass: 0,
            skip: 0,
            rectangles: 0,
            width: 0,
            height: 0,
            tight_bytes: 0,
        }
    }
}

impl ServerFilter {
    /// Takes bytes of the server, in any chunking, and appends to `out` what the client gets.
    ///
    /// # Errors
    /// What the server sent that cannot be framed.
    pub fn push(&mut self, mut input: &[u8], rights: Rights, out: &mut Vec<u8>) -> Result<(), Violation> {
        while !input.is_empty() {
            let wanted = if self.pass > 0 {
                self.pass
            } else if self.skip > 0 {
                self.skip
            } else {
                (self.need - self.head.len()) as u64
            };
            let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(input.len());
            let (now, rest) = input.split_at(count);
            input = rest;
            if self.pass > 0 {
                self.pass -= count as u64;
                out.extend_from_slice(now);
            } else if self.skip > 0 {
                self.skip -= count as u64;
            } else {
                self.head.extend_from_slice(now);
                if self.head.len() == self.need {
                    self.step(rights, out)?;
                }
            }
        }
        Ok(())
    }

    /// Goes on collecting the same header, as part `state` of it.
    fn grow(&mut self, state: State, need: usize) {
        self.state = state;
        self.need = need;
    }

    /// Sends the header and `body` more bytes; then comes `state`.
    fn emit(&mut self, out: &mut Vec<u8>, body: u64, (state, need): (State, usize)) {
        out.append(&mut self.head);
        self.pass = body;
        self.grow(state, need);
    }

    /// Leaves the header and `body` more bytes out; a message follows.
    fn leave_out(&mut self, body: u64) {
        self.head.clear();
        self.skip = body;
        self.grow(State::Message, 1);
    }

    fn after_rectangle(&self) -> (State, usize) {
        if self.rectangles == 0 { (State::Message, 1) } else { (State::Rectangle, 12) }
    }

    /// The header is as long as was needed.
    fn step(&mut self, rights: Rights, out: &mut Vec<u8>) -> Result<(), Violation> {
        let last = self.head[self.head.len() - 1];
        match self.state {
            State::Message => match last {
                0 => self.grow(State::Update, 4),
                2 | 150 => self.emit(out, 0, (State::Message, 1)),
                3 => self.grow(State::CutText, 8),
                248 => self.grow(State::Fence, 9),
                _ => return Err(Violation("unknown message of the server")),
            },
            State::Update => {
                self.rectangles = u16_at(&self.head, 2);
                let next = self.after_rectangle();
                self.emit(out, 0, next);
            }
            State::Rectangle => self.rectangle(out)?,
            State::TightControl => self.tight(last, out)?,
            State::TightFilter => match last {
                0 | 2 => self.tight_data(self.width * self.height * 3, 0, out),
                1 => self.emit(out, 0, (State::TightPalette, 1)),
                _ => return Err(Violation("unknown Tight filter of the server")),
            },
            State::TightPalette => {
                let colours = u64::from(last) + 1;
                let row = if colours <= 2 { self.width.div_ceil(8) } else { self.width };
                self.tight_data(row * self.height, colours * 3, out);
            }
            State::TightLength => {
                let more = last & 0x80 != 0;
                if more && self.head.len() < 3 {
                    self.grow(State::TightLength, self.head.len() + 1);
                } else {
                    let part = |at: usize, bits: u8| u64::from(self.head.get(at).map_or(0, |byte| byte & bits));
                    let length = part(0, 0x7f) | part(1, 0x7f) << 7 | part(2, 0xff) << 14;
                    let next = self.after_rectangle();
                    self.emit(out, length, next);
                }
            }
            State::DesktopName => {
                let length = u64::from(u32_at(&self.head, 0));
                let next = self.after_rectangle();
                self.emit(out, length, next);
            }
            State::Screens => {
                let length = 16 * u64::from(self.head[0]);
                let next = self.after_rectangle();
                self.emit(out, length, next);
            }
            State::VmwareCursor => {
                let bytes_a_pixel = match self.head[0] {
                    0 => 8,
                    1 => 4,
                    _ => return Err(Violation("unknown cursor of the server")),
                };
                let next = self.after_rectangle();
                self.emit(out, self.width * self.height * bytes_a_pixel, next);
            }
            State::CutText => {
                let signed = i32_at(&self.head, 4);
                let length = cut_text_length(signed)? as u64;
                if rights.copy {
                    self.emit(out, length, (State::Message, 1));
                } else if signed < 0 {
                    self.grow(State::CutTextFlags, 12);
                } else {
                    self.leave_out(length);
                }
            }
            State::CutTextFlags => {
                let length = u64::from(i32_at(&self.head, 4).unsigned_abs()) - 4;
                if is_harmless_action(u32_at(&self.head, 8), CLIPBOARD_CAPS) {
                    self.emit(out, length, (State::Message, 1));
                } else {
                    self.leave_out(length);
                }
            }
            State::Fence => self.emit(out, u64::from(last), (State::Message, 1)),
        }
        Ok(())
    }

    fn rectangle(&mut self, out: &mut Vec<u8>) -> Result<(), Violation> {
        self.width = u64::from(u16_at(&self.head, 4));
        self.height = u64::from(u16_at(&self.head, 6));
        // A rectangle is collected only while some are to come.
        self.rectangles -= 1;
        let pixels = self.width * self.height;
        let (body, next) = match i32_at(&self.head, 8) {
            RAW => (pixels * 4, self.after_rectangle()),
            COPY_RECT => (4, self.after_rectangle()),
            TIGHT => (0, (State::TightControl, 1)),
            LAST_RECT => {
                self.rectangles = 0;
                (0, self.after_rectangle())
            }
            DESKTOP_SIZE | QEMU_KEY => (0, self.after_rectangle()),
            LED_STATE => (1, self.after_rectangle()),
            CURSOR => (pixels * 4 + self.width.div_ceil(8) * self.height, self.after_rectangle()),
            DESKTOP_NAME => (0, (State::DesktopName, 4)),
            EXTENDED_DESKTOP_SIZE => (0, (State::Screens, 4)),
            VMWARE_CURSOR => (0, (State::VmwareCursor, 2)),
            _ => return Err(Violation("unknown encoding of the server")),
        };
        self.emit(out, body, next);
        Ok(())
    }

    fn tight(&mut self, control: u8, out: &mut Vec<u8>) -> Result<(), Violation> {
        match control >> 4 {
            8 => {
                let next = self.after_rectangle();
                self.emit(out, 3, next);
            }
            9 => self.emit(out, 0, (State::TightLength, 1)),
            basic @ 0..=7 if basic & 4 != 0 => self.emit(out, 0, (State::TightFilter, 1)),
            0..=7 => self.tight_data(self.width * self.height * 3, 0, out),
            _ => return Err(Violation("unknown Tight compression of the server")),
        }
        Ok(())
    }

    /// After `extra` bytes: `bytes` of pixels as they are when they are few, else compressed behind their length.
    fn tight_data(&mut self, bytes: u64, extra: u64, out: &mut Vec<u8>) {
        self.tight_bytes = bytes;
        if self.tight_bytes < 12 {
            let next = self.after_rectangle();
            self.emit(out, extra + bytes, next);
        } else {
            self.emit(out, extra, (State::TightLength, 1));
        }
    }
}

/// What the server said at the end of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerInit {
    /// Width of the screen.
    pub width: u16,
    /// Height of the screen.
    pub height: u16,
    /// The whole message, to be passed on.
    pub message: Vec<u8>,
}

/// Why a server could not be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the connection to the desktop broke")]
    Io(#[from] std::io::Error),
    #[error("the desktop refused the connection: {0}")]
    Refused(String),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Does the handshake with a server, as a client that shares the desktop with others.
pub(super) async fn connect<S>(stream: &mut S) -> Result<ServerInit, HandshakeError>
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

#[cfg(test)]
#[path = "rfb_tests.rs"]
mod tests;
