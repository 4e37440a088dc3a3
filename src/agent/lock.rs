//! One agent per server on a host.
//!
//! The lock is a `flock` on a file named after the server, held for the agent's life: the kernel lets go of it when the
//! process ends, however it ends.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

/// How often a waiting agent tries again.
const RETRY: Duration = Duration::from_millis(500);

/// The lock. Dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes the lock in `folder`, which is made if need be. While another process holds it this waits, and says so once.
///
/// # Errors
/// When the file cannot be made or locked.
pub async fn acquire(folder: &Path) -> io::Result<Lock> {
    fs::create_dir_all(folder)?;
    let path = folder.join("lock");
    let mut waiting = false;
    loop {
        match attempt(&path)? {
            Ok(lock) => return Ok(lock),
            Err(holder) if !waiting => {
                waiting = true;
                tracing::warn!(lock = %path.display(), holder, "another agent of this server runs; waiting for its end");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The lock, or the process id of who has it.
fn attempt(path: &PathBuf) -> io::Result<Result<Lock, String>> {
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    let mut holder = String::new();
    file.read_to_string(&mut holder)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Ok(Lock { _file: file }))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(Err(holder)),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_agent_waits_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = acquire(folder.path()).await.unwrap();
        let second = tokio::time::timeout(RETRY * 2, acquire(folder.path())).await;
        assert!(second.is_err(), "it waits");
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), acquire(folder.path())).await.unwrap().unwrap();
    }
}
