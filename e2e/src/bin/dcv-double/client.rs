//! A client: opens the documented URL, says what the server said, and stays until its input ends.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;
use serde_json::json;

/// `dcv-double connect URL`.
pub fn run(words: &[String]) -> Result<(), String> {
    let [command, url] = words else { return Err("usage: dcv-double connect URL".into()) };
    if command != "connect" {
        return Err("usage: dcv-double connect URL".into());
    }
    let (address, token, session) = parts(url).ok_or("the URL is not of the documented form")?;
    let fault = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(&address).map_err(|error| format!("{address}: {error}"))?;
    writeln!(stream, "{}", json!({"sessionId": session, "authToken": token})).map_err(fault)?;
    let mut line = String::new();
    BufReader::new(stream.try_clone().map_err(fault)?).read_line(&mut line).map_err(fault)?;
    let answer: Value = serde_json::from_str(&line).map_err(|_| "the server hung up".to_owned())?;
    if let Some(reason) = answer["refused"].as_str() {
        println!("no: {reason}");
        return Ok(());
    }
    println!("yes, user {}", answer["user"].as_str().unwrap_or_default());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(fault)?;
    Ok(())
}

/// Address, token and session of `https://HOST:PORT/PATH?authToken=TOKEN#SESSION`.
fn parts(url: &str) -> Option<(String, String, String)> {
    let rest = url.strip_prefix("https://")?;
    let (rest, session) = rest.split_once('#')?;
    let (place, query) = rest.split_once('?')?;
    let (address, _) = place.split_once('/')?;
    let token = query.strip_prefix("authToken=")?;
    Some((address.to_owned(), token.to_owned(), session.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_taken_apart() {
        let expected = ("10.0.0.1:8443".to_owned(), "a.b".to_owned(), "7b0e".to_owned());
        assert_eq!(parts("https://10.0.0.1:8443/?authToken=a.b#7b0e"), Some(expected));
        for bad in
            ["http://h:1/?authToken=a#b", "https://h:1?authToken=a#b", "https://h:1/#b", "https://h:1/?authToken=a"]
        {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
