//! Processes that come together, or do not, or are lost.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::common::{hosts, in_processes, mix, place, terms, with_lab, write_hosts};
use cluster::{Cluster, ClusterError, Place};
use lab::Limits;

fn refusal(joined: Result<Cluster, ClusterError>) -> String {
    joined.err().map_or_else(|| "it came together".to_owned(), |error| error.to_string())
}

#[test]
fn another_version_of_the_code_is_refused_by_both() {
    let hosts = hosts(2);
    let said: Vec<String> = std::thread::scope(|scope| {
        let join = |process: usize, code: &'static str| {
            let place = place(&hosts, process, 1);
            scope.spawn(move || refusal(Cluster::join(place, terms(code), None)))
        };
        [join(0, "one"), join(1, "another")].map(|process| process.join().expect("nobody panics")).to_vec()
    });
    assert!(said[0].contains("runs another version of the code (another, here one)"), "{said:?}");
    assert!(said[1].contains("runs another version of the code (one, here another)"), "{said:?}");
}

#[test]
fn who_does_not_come_is_named() {
    let hosts = hosts(3);
    let began = Instant::now();
    let place = Place { patience: Duration::from_millis(200), ..place(&hosts, 0, 1) };
    let said = refusal(Cluster::join(place, terms("x"), None));
    assert!(said.starts_with("process 1 at 127.0.0.1:"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("hosts");
    let address = taken.local_addr().expect("it is bound").to_string();
    write_hosts(&path, &address);
    let hosts = cluster::Hosts::read(&path).expect("a host");
    let said = refusal(Cluster::join(place(&hosts, 0, 1), terms("x"), None));
    assert!(said.starts_with(&format!("process 0 cannot listen at {address}: ")), "{said}");
    let said = refusal(Cluster::join(place(&hosts, 1, 1), terms("x"), None));
    assert_eq!(said, "there is no process 1: the hosts file names 1");
}

#[test]
fn a_lost_process_is_named_by_all_others() {
    let ended = in_processes(3, 1, |process, member| {
        let mut ticks = 0;
        with_lab(6, mix, |lab| {
            let mut progress = |_: &lab::Progress| {
                ticks += 1;
                assert!(process != 1 || ticks < 3, "this one is lost");
            };
            lab.explore_apart(&Limits::default(), &mut progress, |apart| member.search(apart, None).map(drop))
        })
    });
    let said: Vec<String> = ended.into_iter().map(|ended| ended.expect_err("one is lost").to_string()).collect();
    for process in [0, 2] {
        assert!(said[process].starts_with("process 1 at 127.0.0.1:"), "{said:?}");
        assert!(said[process].ends_with(" was lost"), "{said:?}");
    }
    assert_eq!(said[1], "a thread of this process has panicked");
}
