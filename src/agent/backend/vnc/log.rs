//! What a session's programs print: kept in one bounded file, the end of each source remembered for when it fails.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::Write;
use std::process::Stdio;

use tokio::net::unix::pipe;

/// Size at which the file starts anew.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How much of a source's end is told.
const TAIL_BYTES: usize = 600;
/// How much is read of a source at once: what a pipe holds, by default.
const CHUNK_BYTES: usize = 64 << 10;

/// Who prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    XServer,
    Programs,
}

const SOURCES: [Source; 2] = [Source::XServer, Source::Programs];

/// The log of one session.
pub(super) struct Log {
    file: File,
    bytes: u64,
    x_server: Output,
    programs: Output,
}

struct Output {
    reader: pipe::Receiver,
    writer: io::PipeWriter,
    tail: Vec<u8>,
}

impl Output {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader: pipe::Receiver::from_owned_fd(reader.into())?, writer, tail: Vec::new() })
    }
}

impl Log {
    /// A log into `file`.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self { file, bytes: 0, x_server: Output::new()?, programs: Output::new()? })
    }

    fn output(&mut self, source: Source) -> &mut Output {
        match source {
            Source::XServer => &mut self.x_server,
            Source::Programs => &mut self.programs,
        }
    }

    /// Where a program of this source prints to.
    pub fn writer(&self, source: Source) -> io::Result<Stdio> {
        let output = match source {
            Source::XServer => &self.x_server,
            Source::Programs => &self.programs,
        };
        Ok(output.writer.try_clone()?.into())
    }

    /// Waits until something is printed, and takes it in.
    pub async fn collect(&mut self) {
        let readable = tokio::select! {
            readable = self.x_server.reader.readable() => readable,
            readable = self.programs.reader.readable() => readable,
        };
        if readable.is_err() {
            // Only when the runtime is going down.
            std::future::pending::<()>().await;
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        for source in SOURCES {
            if let Ok(count) = self.output(source).reader.try_read(&mut buffer) {
                self.append(source, &buffer[..count]);
            }
        }
    }

    /// Takes in what is printed already, at most a pipe of each source: one that prints without end keeps nobody waiting.
    pub fn drain(&mut self) {
        let mut buffer = vec![0; CHUNK_BYTES];
        for source in SOURCES {
            // Past the runtime, which has perhaps not heard yet that there is something to read.
            if let Ok(count) = nix::unistd::read(&self.output(source).reader, &mut buffer) {
                self.append(source, &buffer[..count]);
            }
        }
    }

    /// Adds a line of our own.
    pub fn note(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    fn append(&mut self, source: Source, bytes: &[u8]) {
        self.write(bytes);
        let tail = &mut self.output(source).tail;
        tail.extend_from_slice(bytes);
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.bytes + bytes.len() as u64 > FILE_BYTES_MAX {
            // A full disk or quota costs the log, not the session.
            let _ = self.file.set_len(0).and_then(|()| self.file.rewind());
            self.bytes = 0;
        }
        let _ = self.file.write_all(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The last lines of a source, as one line.
    pub fn last_lines(&mut self, source: Source) -> String {
        let tail = &self.output(source).tail;
        let text = String::from_utf8_lossy(tail);
        let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // The first one is cut, unless all of it fitted.
        if tail.len() >= TAIL_BYTES && lines.len() > 1 {
            lines.remove(0);
        }
        lines.join("; ").replace(|c: char| c.is_control(), " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_bounded_and_the_end_of_each_source_remembered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::new(file.reopen().unwrap()).unwrap();
        log.x_server.writer.write_all(b"first\n").unwrap();
        log.collect().await;
        assert_eq!(log.last_lines(Source::XServer), "first");
        assert_eq!(log.last_lines(Source::Programs), "");
        for _ in 0..3 {
            log.append(Source::Programs, &b"x".repeat(600_000));
        }
        log.programs.writer.write_all(b"\n\nlast but one\nlast\x1b[0m\n").unwrap();
        log.drain();
        assert!(file.as_file().metadata().unwrap().len() <= FILE_BYTES_MAX);
        assert_eq!(log.last_lines(Source::Programs), "last but one; last [0m");
        assert_eq!(log.last_lines(Source::XServer), "first");
    }
}
