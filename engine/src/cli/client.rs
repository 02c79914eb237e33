//! Calls the admin listener of a running engine: one request a connection, small answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use super::{Exit, Place, complain};
use crate::{admin, config};

/// How long an engine may take to answer; a reload compiles and tests everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const ANSWER_BYTES: u64 = 16 << 20;

/// Which engine to call.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The engine's admin address, if it is not the one in the configuration.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl Target {
    /// Asks for a page.
    pub(super) fn get(&self, place: &Place, path: &str) -> Result<Value, Exit> {
        self.call(place, "GET", path, "")
    }

    /// Asks for a change.
    pub(super) fn post(&self, place: &Place, path: &str, body: &Value) -> Result<Value, Exit> {
        self.call(place, "POST", path, &body.to_string())
    }

    fn call(&self, place: &Place, method: &str, path: &str, body: &str) -> Result<Value, Exit> {
        let address = self.address(place)?;
        let answer = exchange(address, method, path, body).map_err(|error| {
            complain(format_args!("tie: no engine answers at {address}: {error}"));
            Exit::Unreachable
        })?;
        match answer {
            (200, body) => Ok(body),
            (status, body) => {
                let what = body.get("error").and_then(Value::as_str).unwrap_or("it does not say why");
                complain(format_args!("tie: the engine at {address} refuses ({status}): {what}"));
                Err(if status >= 500 { Exit::Unreachable } else { Exit::Wrong })
            }
        }
    }

    fn address(&self, place: &Place) -> Result<SocketAddr, Exit> {
        if let Some(address) = self.admin {
            return Ok(address);
        }
        let text = super::read(&place.config_file())?;
        Ok(admin::callable(config::admin_address(&String::from_utf8_lossy(&text))))
    }
}

/// One request for JSON. `{}` stands for an answer without a body.
pub(super) fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, Value)> {
    let (status, text) = fetch(address, method, path, body)?;
    let value = match text.is_empty() {
        true => Value::Object(serde_json::Map::new()),
        false => serde_json::from_str(&text).map_err(|_| stranger())?,
    };
    Ok((status, value))
}

/// HTTP/1.1 in its smallest form: the server closes when it has answered.
pub(super) fn fetch(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(stranger)
}

fn stranger() -> std::io::Error {
    std::io::Error::other("what answers there is no TIE")
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Adds up the samples of a metric in the Prometheus text format.
pub(super) fn sum(metrics: &str, prefix: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(prefix)?.rsplit_once(' '));
    samples
        .filter(|(labels, _)| wanted(labels))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_strangers_are_known() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 16\r\n\r\n{\"ready\": false}";
        assert_eq!(parse(answer), Some((503, "{\"ready\": false}".to_owned())));
        for strange in [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"", b"HTTP/1.1 200"] {
            assert_eq!(parse(strange), None);
        }
    }

    #[test]
    fn samples_are_added_up_by_their_labels() {
        let metrics = "# HELP a b\na{x=\"1\"} 3\na{x=\"2\"} 4\nab{x=\"1\"} 9\n";
        assert_eq!(sum(metrics, "a{", |_| true), 7);
        assert_eq!(sum(metrics, "a{", |labels| labels.contains("\"2\"")), 4);
    }
}
