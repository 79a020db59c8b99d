//! Which processes there are: a file with a line for each.

use std::path::Path;

use crate::error::ClusterError;

/// Where processes listen, in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hosts(pub(crate) Vec<String>);

impl Hosts {
    /// Reads a file of lines `host:port`. Empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// It cannot be read, a line is something else, or an address is there twice.
    pub fn read(path: &Path) -> Result<Self, ClusterError> {
        let path = path.to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text),
            Err(cause) => Err(ClusterError::Unreadable { path, cause }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ClusterError> {
        let mut hosts: Vec<String> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let host = line.trim();
            if host.is_empty() || host.starts_with('#') {
                continue;
            }
            let why = match host.rsplit_once(':') {
                None => Some("it has no port"),
                Some(("", _)) => Some("it has no name or address before the port"),
                Some((_, port)) if port.parse::<u16>().is_err() => Some("its port is no number up to 65535"),
                Some((name, _)) if name.contains(char::is_whitespace) => Some("it has a blank in it"),
                Some(_) if hosts.iter().any(|known| known == host) => Some("it is there twice"),
                Some(_) => None,
            };
            if let Some(why) = why {
                let (path, text) = (path.to_owned(), host.to_owned());
                return Err(ClusterError::BadHost { path, line: number, text, why });
            }
            hosts.push(host.to_owned());
        }
        if hosts.is_empty() {
            return Err(ClusterError::NoHosts { path: path.to_owned() });
        }
        Ok(Self(hosts))
    }

    /// How many processes there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Hosts, String> {
        Hosts::parse(Path::new("hosts"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_process() {
        let hosts = parse("# ours\n10.0.0.7:2101\n\n  lab.example:80\n[::1]:9\n").expect("three hosts");
        assert_eq!(hosts.0, ["10.0.0.7:2101", "lab.example:80", "[::1]:9"]);
    }

    #[test]
    fn what_is_no_host_is_named_with_its_line() {
        for (text, message) in [
            ("", "the hosts file hosts names no host"),
            ("a:1\nb\n", "hosts:2: `b` is no host: it has no port"),
            ("a:1\na:1\n", "hosts:2: `a:1` is no host: it is there twice"),
            ("a:99999\n", "hosts:1: `a:99999` is no host: its port is no number up to 65535"),
            (":1\n", "hosts:1: `:1` is no host: it has no name or address before the port"),
            ("a b:1\n", "hosts:1: `a b:1` is no host: it has a blank in it"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
    }
}
