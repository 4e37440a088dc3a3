//! Where a command that takes long says how it goes.

use std::io::Write;

use super::error::Error;

/// Data to one side, remarks to the other.
pub(super) struct Voice<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Remarks.
    pub talk: &'a mut dyn Write,
}

impl Voice<'_> {
    /// A line of data, which is seen at once.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        self.print(&format!("{line}\n"))
    }

    /// Data that has its own line ends.
    pub fn print(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    /// A remark.
    pub fn remark(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.talk, "{line}").map_err(Error::Output)
    }
}
