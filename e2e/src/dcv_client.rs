//! A client of a DCV server's double.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use crate::stand::root;

/// A client that has opened the documented URL: what the server said, and the connection while it lives. Dropped, it leaves.
pub struct DcvClient {
    process: Child,
    /// What the server said.
    pub said: String,
}

impl DcvClient {
    /// Opens the URL, and stays.
    pub fn open(url: &str) -> Self {
        let double = root().join("target/debug/dcv-double");
        let process = Command::new(double).args(["connect", url]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("the client can be run");
        let mut said = String::new();
        let output = process.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut said).expect("it says something");
        Self { process, said: said.trim().to_owned() }
    }
}

impl Drop for DcvClient {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
