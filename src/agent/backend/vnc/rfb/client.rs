//! From the client to the server: what its rights let through.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Rights;
use super::Violation;
use super::cut_text_length;
use super::i32_at;
use super::is_harmless_action;
use super::is_known_encoding;
use super::is_true_colour;
use super::u16_at;
use super::u32_at;

/// Keys held down at once; what goes beyond is not released at withdrawal.
const KEYS_MAX: usize = 256;

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
            6 => rights.paste || is_harmless_cut_text(message),
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
pub(super) fn client_message_length(start: &[u8]) -> Result<Option<usize>, Violation> {
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

/// Whether a cut text of the extended form only asks what there is, or says what is understood.
///
/// One that says that the client has text is not: it makes the server take the clipboard from whoever has it, for text
/// that is then not let in.
fn is_harmless_cut_text(message: &[u8]) -> bool {
    i32_at(message, 4) < 0 && is_harmless_action(u32_at(message, 8))
}

fn rewrite_encodings(message: &[u8], out: &mut Vec<u8>) {
    let kept: Vec<&[u8]> = message[4..].chunks_exact(4).filter(|four| is_known_encoding(i32_at(four, 0))).collect();
    // At most as many as came, so it fits.
    let count = u16::try_from(kept.len()).unwrap_or(u16::MAX);
    out.extend([2, 0]);
    out.extend(count.to_be_bytes());
    out.extend(kept.concat());
}
