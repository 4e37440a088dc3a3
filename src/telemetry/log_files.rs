//! Log files that begin anew after a while or a size, and of which so many are kept.
//!
//! `NAME.log` is written; the one before it is `NAME.log.1`, and so on. A record is never divided between two files. What
//! cannot be written to a file goes to standard error, so that a full disk takes no record away.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;

/// When a new file begins, whatever its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// At midnight, UTC.
    #[default]
    Daily,
    /// At the full hour.
    Hourly,
}

/// Where and how log files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Folder of the files. Made when it is not there.
    pub directory: PathBuf,
    /// Name of the file that is written, without folder.
    pub file_name: String,
    /// When a new file begins.
    pub rotation: Rotation,
    /// Bytes after which a new file begins.
    pub max_file_bytes: u64,
    /// How many old files are kept.
    pub rotate: usize,
}

/// A log file that is being written.
pub struct Writer {
    files: LogFiles,
    now: fn() -> Timestamp,
    file: File,
    bytes: u64,
    period: i64,
}

impl Rotation {
    /// Number of the period that a moment lies in.
    fn period(self, time: Timestamp) -> i64 {
        let seconds = match self {
            Self::Daily => 86_400,
            Self::Hourly => 3_600,
        };
        time.as_second().div_euclid(seconds)
    }
}

impl LogFiles {
    fn path(&self, number: usize) -> PathBuf {
        match number {
            0 => self.directory.join(&self.file_name),
            number => self.directory.join(format!("{}.{number}", self.file_name)),
        }
    }

    /// Makes room for a new file. What fails is left: better too many files than no record.
    fn shift(&self) {
        // Also those that an earlier, higher number of files to keep has left.
        let mut surplus = self.rotate.max(1);
        while fs::remove_file(self.path(surplus)).is_ok() {
            surplus += 1;
        }
        if self.rotate == 0 {
            let _ = fs::remove_file(self.path(0));
            return;
        }
        for number in (0..self.rotate).rev() {
            let _ = fs::rename(self.path(number), self.path(number + 1));
        }
    }

    fn open(&self) -> io::Result<File> {
        // Logs name people and their sessions: not for everybody on the host.
        File::options().create(true).append(true).mode(0o640).open(self.path(0))
    }
}

impl Writer {
    /// Goes on with the file that is there.
    ///
    /// # Errors
    /// When the folder or the file cannot be made.
    pub fn open(files: LogFiles, now: fn() -> Timestamp) -> io::Result<Self> {
        make_folder(&files.directory)?;
        let file = files.open()?;
        let metadata = file.metadata()?;
        let written = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let period = files.rotation.period(written.unwrap_or_else(now));
        Ok(Self { now, file, bytes: metadata.len(), period, files })
    }

    /// Whether a record of this length begins a new file. A file has one record at least.
    fn is_over(&self, length: u64, period: i64) -> bool {
        self.bytes > 0 && (period != self.period || self.bytes.saturating_add(length) > self.files.max_file_bytes)
    }

    fn try_write(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u64::try_from(record.len()).unwrap_or(u64::MAX);
        let period = self.files.rotation.period((self.now)());
        if self.is_over(length, period) {
            self.files.shift();
            self.file = self.files.open()?;
            self.bytes = self.file.metadata()?.len();
        }
        self.period = period;
        self.file.write_all(record)?;
        self.bytes += length;
        Ok(())
    }
}

impl Write for Writer {
    /// Takes a whole record.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.try_write(record).is_err() {
            // The folder may be another by now, or have been taken away.
            let again = make_folder(&self.files.directory).and_then(|()| self.files.open());
            let is_written = again.and_then(|file| {
                self.bytes = file.metadata()?.len();
                self.file = file;
                self.file.write_all(record)
            });
            if is_written.is_err() {
                io::stderr().lock().write_all(record)?;
            }
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<i64> = const { Cell::new(0) };
    }

    fn now() -> Timestamp {
        Timestamp::from_second(NOW.get()).unwrap()
    }

    fn files(folder: &Path) -> LogFiles {
        LogFiles {
            directory: folder.join("logs"),
            file_name: "agent.log".into(),
            rotation: Rotation::Hourly,
            max_file_bytes: 20,
            rotate: 2,
        }
    }

    fn content(folder: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(folder.join("logs")).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> = entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect();
        files.sort();
        files
    }

    fn told(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_new_file_begins_after_a_size_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(files(folder.path()), now).unwrap();
        for number in 1..=7 {
            writer.write_all(format!("record {number}\n").as_bytes()).unwrap();
        }
        let expected = [
            ("agent.log", "record 7\n"),
            ("agent.log.1", "record 5\nrecord 6\n"),
            ("agent.log.2", "record 3\nrecord 4\n"),
        ];
        assert_eq!(content(folder.path()), told(&expected));
        let long = "a record that is longer than a file may be\n";
        writer.write_all(long.as_bytes()).unwrap();
        writer.write_all(b"x\n").unwrap();
        assert_eq!(content(folder.path())[..2], told(&[("agent.log", "x\n"), ("agent.log.1", long)]));
    }

    #[test]
    fn a_new_file_begins_with_the_hour_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let start = Timestamp::try_from(std::time::SystemTime::now()).unwrap().as_second();
        NOW.set(start);
        let mut writer = Writer::open(files(folder.path()), now).unwrap();
        writer.write_all(b"first\n").unwrap();
        drop(writer);
        NOW.set(start + 3600);
        let mut writer = Writer::open(files(folder.path()), now).unwrap();
        writer.write_all(b"second\n").unwrap();
        writer.write_all(b"third\n").unwrap();
        assert_eq!(content(folder.path()), told(&[("agent.log", "second\nthird\n"), ("agent.log.1", "first\n")]));
        assert_eq!(Rotation::Daily.period(Timestamp::from_second(86_399).unwrap()), 0);
        assert_eq!(Rotation::Daily.period(Timestamp::from_second(86_400).unwrap()), 1);
    }

    #[test]
    fn fewer_files_to_keep_take_the_surplus_away() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        for number in 1..=5 {
            fs::write(folder.path().join(format!("logs/agent.log.{number}")), "old").unwrap();
        }
        fs::write(folder.path().join("logs/agent.log"), "twenty bytes of text").unwrap();
        let none = LogFiles { rotate: 0, ..files(folder.path()) };
        Writer::open(none, now).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(content(folder.path()), told(&[("agent.log", "new\n")]));
    }

    #[test]
    fn a_folder_that_was_taken_away_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        NOW.set(0);
        let mut writer = Writer::open(files(folder.path()), now).unwrap();
        writer.write_all(b"a first record\n").unwrap();
        fs::remove_dir_all(folder.path().join("logs")).unwrap();
        writer.write_all(b"a second record\n").unwrap();
        assert_eq!(content(folder.path()), told(&[("agent.log", "a second record\n")]));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("logs"), "a file").unwrap();
        assert!(Writer::open(files(folder.path()), now).is_err());
    }
}
