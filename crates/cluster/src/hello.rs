//! Processes come together: a connection between any two, and both say who they are before anything else.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::error::ClusterError;
use crate::hosts::Hosts;

/// What every greeting begins with. The last byte is the version of what is said afterwards.
const MAGIC: [u8; 8] = *b"FGUPCLU\x01";
/// No greeting is longer.
const MOST_BYTES: usize = 1 << 16;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// An attempt takes no longer.
const ATTEMPT: Duration = Duration::from_secs(1);
/// A greeting takes no longer.
const GREETING: Duration = Duration::from_secs(10);

/// What must be the same in all processes, by name; the first is the code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Terms(pub Vec<(String, String)>);

/// Who a process is.
#[derive(PartialEq, Eq, Debug)]
struct Hello {
    process: u64,
    terms: Terms,
}

impl Hello {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        let mut text = self.process.to_string();
        for (name, value) in &self.terms.0 {
            text.push_str(&format!("\n{name}\t{value}"));
        }
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        out.write_all(&bytes)
    }

    fn read(input: &mut impl Read) -> io::Result<Self> {
        let stranger = || io::Error::from(io::ErrorKind::InvalidData);
        let mut magic = [0; 8];
        input.read_exact(&mut magic)?;
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if magic != MAGIC || length > MOST_BYTES {
            return Err(stranger());
        }
        let mut text = vec![0; length];
        input.read_exact(&mut text)?;
        let text = String::from_utf8(text).map_err(|_| stranger())?;
        let mut lines = text.lines();
        let process = lines.next().and_then(|line| line.parse().ok()).ok_or_else(stranger)?;
        let term = |line: &str| line.split_once('\t').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let terms = lines.map(term).collect::<Option<_>>().ok_or_else(stranger)?;
        Ok(Self { process, terms: Terms(terms) })
    }
}

/// Connects this process with all others. A connection for each, and none for this one.
pub(crate) fn come_together(
    hosts: &Hosts,
    process: usize,
    terms: &Terms,
    patience: Duration,
    cancel: Option<&AtomicBool>,
) -> Result<Vec<Option<TcpStream>>, ClusterError> {
    let host = |number: usize| hosts.0[number].clone();
    let listen = |cause| ClusterError::Listen { process, host: host(process), cause };
    let listener = TcpListener::bind(&hosts.0[process]).map_err(listen)?;
    listener.set_nonblocking(true)?;
    let mine = Hello { process: process as u64, terms: terms.clone() };
    let mut found: BTreeMap<usize, TcpStream> = BTreeMap::new();
    let began = Instant::now();
    loop {
        for other in 0..process {
            if !found.contains_key(&other)
                && let Some(stream) = connect(&hosts.0[other])
            {
                // Whoever has gone again meanwhile is tried again.
                if let Some(stream) = greet_first(stream, other, &mine, hosts)? {
                    found.insert(other, stream);
                }
            }
        }
        while found.len() + 1 < hosts.len() {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Some((other, stream)) = greet_back(stream, &mine, hosts)?
                        && found.insert(other, stream).is_some()
                    {
                        return Err(ClusterError::Twice { process: other });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It has gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(missing) = (0..hosts.len()).find(|other| *other != process && !found.contains_key(other)) else {
            break;
        };
        if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(ClusterError::Cancelled { process: missing, host: host(missing) });
        }
        if began.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(ClusterError::Absent { process: missing, host: host(missing), seconds });
        }
        std::thread::sleep(PAUSE);
    }
    Ok((0..hosts.len()).map(|other| found.remove(&other)).collect())
}

/// `None` if nobody listens there yet.
fn connect(host: &str) -> Option<TcpStream> {
    let addresses = host.to_socket_addrs().ok()?;
    addresses.into_iter().find_map(|address| TcpStream::connect_timeout(&address, ATTEMPT).ok())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREETING))?;
    // A machine that has lost its power says nothing.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    Ok(())
}

/// To one who listens. `None` if it is gone again.
fn greet_first(
    mut stream: TcpStream,
    other: usize,
    mine: &Hello,
    hosts: &Hosts,
) -> Result<Option<TcpStream>, ClusterError> {
    prepare(&stream)?;
    if mine.write(&mut stream).is_err() {
        return Ok(None);
    }
    let stranger = || ClusterError::Stranger { process: other, host: hosts.0[other].clone() };
    match Hello::read(&mut stream) {
        Ok(theirs) if theirs.process == other as u64 => {
            agree(other, mine, &theirs, hosts)?;
            stream.set_read_timeout(None)?;
            Ok(Some(stream))
        }
        // A process that has no more connections to make, or ended, closes those that wait.
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::WouldBlock) => Ok(None),
        _ => Err(stranger()),
    }
}

/// To one who came. `None` if it is none of ours.
fn greet_back(mut stream: TcpStream, mine: &Hello, hosts: &Hosts) -> Result<Option<(usize, TcpStream)>, ClusterError> {
    prepare(&stream)?;
    let Ok(theirs) = Hello::read(&mut stream) else { return Ok(None) };
    // Also to one who will not like it: he says why, too.
    let answered = mine.write(&mut stream);
    let other = usize::try_from(theirs.process).unwrap_or(usize::MAX);
    if other as u64 == mine.process {
        return Err(ClusterError::Twice { process: other });
    }
    if other >= hosts.len() {
        let what = "the number of hosts".to_owned();
        return Err(ClusterError::OtherQuestion { process: other, host: "another machine".to_owned(), what });
    }
    agree(other, mine, &theirs, hosts)?;
    stream.set_read_timeout(None)?;
    Ok(answered.is_ok().then_some((other, stream)))
}

fn agree(process: usize, mine: &Hello, theirs: &Hello, hosts: &Hosts) -> Result<(), ClusterError> {
    let host = hosts.0[process].clone();
    let all = |hello: &Hello| hello.terms.0.iter().cloned().collect::<BTreeMap<String, String>>();
    let (ours, others) = (all(mine), all(theirs));
    let differs = |name: &&String| ours.get(*name) != others.get(*name);
    let mut names = mine.terms.0.iter().chain(&theirs.terms.0).map(|(name, _)| name);
    let Some(what) = names.find(differs).cloned() else { return Ok(()) };
    if mine.terms.0.first().is_some_and(|(name, _)| *name == what) {
        let short = |terms: &BTreeMap<String, String>| {
            terms.get(&what).map_or_else(String::new, |digest| digest.chars().take(12).collect())
        };
        return Err(ClusterError::OtherCode { process, host, theirs: short(&others), ours: short(&ours) });
    }
    Err(ClusterError::OtherQuestion { process, host, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(terms: &[(&str, &str)]) -> Hello {
        let terms = terms.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Hello { process: 1, terms: Terms(terms) }
    }

    #[test]
    fn a_greeting_is_read_as_it_was_written_and_nothing_else_is() {
        let mine = hello(&[("the code", "abc"), ("the race", "x")]);
        let mut bytes = Vec::new();
        mine.write(&mut bytes).expect("memory is not full");
        assert_eq!(Hello::read(&mut &bytes[..]).expect("as written"), mine);
        for cut in 0..bytes.len() {
            assert!(Hello::read(&mut &bytes[..cut]).is_err(), "{cut}");
        }
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64]] {
            let error = Hello::read(&mut &request[..]).expect_err("no greeting");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn what_differs_is_named() {
        let hosts = Hosts(vec!["a:1".to_owned(), "b:1".to_owned()]);
        let agree = |mine, theirs| agree(1, &hello(mine), &hello(theirs), &hosts).map_err(|error| error.to_string());
        assert_eq!(agree(&[("the code", "1"), ("limits", "2")], &[("the code", "1"), ("limits", "2")]), Ok(()));
        assert_eq!(
            agree(&[("the code", "1"), ("limits", "2")], &[("the code", "1"), ("limits", "3")]),
            Err("process 1 at b:1 was asked something else: limits is not as here".to_owned())
        );
        assert_eq!(
            agree(&[("the code", "1"), ("limits", "2")], &[("the code", "9"), ("limits", "3")]),
            Err("process 1 at b:1 runs another version of the code (9, here 1)".to_owned())
        );
    }
}
