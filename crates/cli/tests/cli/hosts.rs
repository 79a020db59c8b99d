//! Three processes on loopback addresses decide a race: as one does, and also if one of them is killed on the way.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::program::{self, text};

/// A variant of the catalogue that is safe, and one that is broken.
const RACE: &str = "pae-zap-refault";
const SAFE: [&str; 6] = ["check", RACE, "--variant", "sequence-count", "--memory", "tso"];
const BROKEN: [&str; 6] = ["check", RACE, "--variant", "low-high-low", "--memory", "tso"];

fn fastgup(arguments: &[&str]) -> Command {
    let mut command = program::fastgup();
    command.args(arguments).args(["--json", "--trace", "always"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A file of so many addresses of this machine that were free a moment ago.
fn hosts(folder: &Path, processes: usize) -> PathBuf {
    let listen = |_| TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let listeners: Vec<_> = (0..processes).map(listen).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
    let path = folder.join("hosts");
    std::fs::write(&path, listeners.iter().map(address).collect::<Vec<_>>().join("\n")).expect("a file can be written");
    path
}

/// Process `number` of those of the file.
fn process(number: usize, hosts: &Path, arguments: &[&str]) -> Child {
    let mut command = fastgup(arguments);
    command.arg("--hosts").arg(hosts).args(["--process", &number.to_string(), "--wait", "60"]);
    command.spawn().expect("the program starts")
}

fn all(hosts: &Path, processes: usize, arguments: &[&str]) -> Vec<Output> {
    let children: Vec<Child> = (0..processes).map(|number| process(number, hosts, arguments)).collect();
    children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
}

/// What must be the same: all but how long it took, how deep it went and how much memory it used.
fn answer(output: &Output) -> Value {
    let line = text(&output.stdout).lines().next().unwrap_or_else(|| panic!("no report: {}", text(&output.stderr)));
    let mut report: Value = serde_json::from_str(line).expect("a line of JSON");
    let members = report.as_object_mut().expect("an object");
    for varies in ["seconds", "visited_bytes", "depth"] {
        members.remove(varies);
    }
    report
}

#[test]
fn three_processes_answer_as_one_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for question in [SAFE, BROKEN] {
        let one = fastgup(&[&question[..], &["--team", "1"]].concat()).output().expect("the program starts");
        let three = all(&hosts(folder.path(), 3), 3, &question);
        let codes: Vec<_> = three.iter().map(|output| output.status.code()).collect();
        assert_eq!(codes, [Some(0); 3], "{}", text(&three[0].stderr));
        let (mut theirs, mut ours) = (answer(&three[0]), answer(&one));
        if ours["verdict"] == "violation" {
            // How much had been seen when it was found is a matter of chance; verdict and trace are not.
            for report in [&mut theirs, &mut ours] {
                let members = report.as_object_mut().expect("an object");
                assert!(members.remove("states").is_some() && members.remove("transitions").is_some());
            }
        }
        assert_eq!(theirs, ours);
        assert!(three[1..].iter().all(|output| output.stdout.is_empty()), "only process 0 has reports");
    }
}

/// A search that takes some seconds.
const LONG: [&str; 6] = ["check", "pae-four-threads", "--variant", "cmpxchg8b", "--memory", "tso"];

/// Three processes on their way with [`LONG`], each of which has two checkpoints in the folder.
fn three_under_way(folder: &Path, kept: &str) -> Vec<Child> {
    let hosts_file = hosts(folder, 3);
    let arguments = [&LONG[..], &["--checkpoint", kept, "--checkpoint-every", "0.05"]].concat();
    let mut children: Vec<Child> = (0..3).map(|number| process(number, &hosts_file, &arguments)).collect();
    wait_for_second_checkpoints(Path::new(kept), &mut children[0]);
    children
}

/// Returns when each of three processes has a second checkpoint. Whoever is too fast for that has an answer, which is a failure.
fn wait_for_second_checkpoints(kept: &Path, first: &mut Child) {
    let has_second = |member: usize| {
        let files = std::fs::read_dir(kept).into_iter().flatten().flatten();
        let names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        let number = |name: &String| -> Option<u64> {
            name.split_once(&format!(".{member}of3."))?.1.strip_suffix(".checkpoint")?.parse().ok()
        };
        names.iter().filter_map(number).any(|number| number >= 2)
    };
    while !(0..3).all(has_second) {
        assert!(first.try_wait().expect("it can be asked").is_none(), "it ended before its time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_to_one_process_ends_all_and_they_go_on_from_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = fastgup(&[&LONG[..], &["--team", "1"]].concat()).output().expect("the program starts");
    let kept = folder.path().join("kept");
    let kept_name = kept.to_str().expect("temporary paths are text");
    let children = three_under_way(folder.path(), kept_name);
    let interrupted = Command::new("kill").args(["-INT", &children[1].id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let ended: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect();
    let codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
    assert_eq!(codes, [Some(3), Some(130), Some(3)], "{}", text(&ended[0].stderr));
    let answered = answer(&ended[0]);
    assert_eq!(answered["verdict"], "bounded", "{answered}");
    assert!(answered["states"].as_u64() > Some(0), "the answer so far: {answered}");
    let three = all(&hosts(folder.path(), 3), 3, &[&LONG[..], &["--resume", kept_name]].concat());
    assert_eq!(answer(&three[0]), answer(&one), "{}", text(&three[0].stderr));
}

#[test]
fn who_is_killed_is_named_and_all_go_on_from_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let one = fastgup(&[&LONG[..], &["--team", "1"]].concat()).output().expect("the program starts");
    let kept = folder.path().join("kept");
    let kept_name = kept.to_str().expect("temporary paths are text");
    let mut children = three_under_way(folder.path(), kept_name);
    let mut killed = children.remove(1);
    killed.kill().expect("it can be killed");
    let _ = killed.wait();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("process 1 at 127.0.0.1:") && said.contains("was lost"), "{said}");
        assert!(said.contains("--resume"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let again = [&LONG[..], &["--resume", kept_name]].concat();
    // Two are not three: what each has kept is a third of the search.
    let two = all(&hosts(folder.path(), 2), 2, &again);
    let why = answer(&two[0])["message"].to_string();
    assert!(why.contains("a part of a search by 3 members") && why.contains("start as many again"), "{why}");
    let three = all(&hosts(folder.path(), 3), 3, &again);
    assert_eq!(three[0].status.code(), Some(0), "{}", text(&three[0].stderr));
    assert_eq!(answer(&three[0]), answer(&one));
    let left: Vec<_> = std::fs::read_dir(&kept).expect("the folder is there").collect();
    assert!(left.is_empty(), "what is decided is kept no more: {left:?}");
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_mend() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("hosts");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    for (content, number, problem, mend) in [
        ("", "0", "names no host", "write a line `host:port` for each process"),
        ("127.0.0.1\n", "0", "hosts:1: `127.0.0.1` is no host: it has no port", "write `host:port`"),
        ("127.0.0.1:7\n127.0.0.1:8\n", "2", "there is no process 2: the hosts file names 2", "the last is 1"),
        (&*address, "0", "cannot listen at", "a free port of this machine"),
        (
            "127.0.0.1:0\n127.0.0.1:1\n",
            "0",
            "process 1 at 127.0.0.1:1 did not come within 0 s",
            "start one process for each line",
        ),
    ] {
        std::fs::write(&path, content).expect("a file can be written");
        let mut command = fastgup(&SAFE);
        let output = command.arg("--hosts").arg(&path).args(["--process", number, "--wait", "0"]).output();
        let output = output.expect("the program starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(problem) && said.contains(mend), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let output = fastgup(&SAFE).args(["--hosts", "nowhere", "--process", "0"]).output().expect("the program starts");
    assert!(text(&output.stderr).contains("cannot read the hosts file nowhere"), "{}", text(&output.stderr));
    let sweep = ["--cpus", "3..4", "--hosts", "nowhere", "--process", "0"];
    let output = fastgup(&["check", RACE]).args(sweep).output().expect("the program starts");
    assert!(text(&output.stderr).contains("--job I/N"), "{}", text(&output.stderr));
    let output = fastgup(&SAFE).args(["--process", "0"]).output().expect("the program starts");
    assert!(text(&output.stderr).contains("--hosts"), "{}", text(&output.stderr));
}

#[test]
fn processes_that_were_asked_other_things_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = hosts(folder.path(), 2);
    let other = ["check", RACE, "--variant", "cmpxchg8b", "--memory", "tso"];
    for child in [process(0, &hosts, &SAFE), process(1, &hosts, &other)] {
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("was asked something else: the choice of variants is not as here"), "{said}");
    }
}

#[test]
fn whoever_connects_by_mistake_is_not_listened_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = hosts(folder.path(), 2);
    let address = std::fs::read_to_string(&hosts).expect("it was written").lines().next().map(str::to_owned);
    let first = process(0, &hosts, &SAFE);
    // Until it listens.
    let mut stranger = loop {
        if let Ok(stream) = std::net::TcpStream::connect(address.as_deref().expect("two lines")) {
            break stream;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it listens");
    let mut nothing = Vec::new();
    let _ = stranger.read_to_end(&mut nothing);
    assert!(nothing.is_empty(), "a stranger is told nothing");
    let second = process(1, &hosts, &SAFE);
    for child in [first, second] {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}
