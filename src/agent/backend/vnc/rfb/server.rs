//! From the server to the client: everything framed, and the clipboard left out where it may not be read.

use super::COPY_RECT;
use super::CURSOR;
use super::DESKTOP_NAME;
use super::DESKTOP_SIZE;
use super::EXTENDED_DESKTOP_SIZE;
use super::LAST_RECT;
use super::LED_STATE;
use super::QEMU_KEY;
use super::RAW;
use super::Rights;
use super::TIGHT;
use super::VMWARE_CURSOR;
use super::Violation;
use super::cut_text_length;
use super::i32_at;
use super::is_harmless_action;
use super::u16_at;
use super::u32_at;

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
                if is_harmless_action(u32_at(&self.head, 8)) {
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
