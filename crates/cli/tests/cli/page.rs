//! The page that `--html` writes: it needs no network, and steps forwards and backwards in a browser. Skipped where there is no Chromium.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{as_argument, code, run};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Runs it, and sees that it ends so: 1 if the claim of a file is not kept.
fn ends_with(expected: i32, arguments: &[&str]) {
    assert_eq!(code(&run(arguments)), Some(expected), "{arguments:?}");
}

/// The page of the seed under TSO, and the folder that it is in.
fn torn_read() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("torn.html");
    let words =
        ["check", "pae-zap-refault", "--variant", "low-high-low", "--memory", "tso", "--trace", "never", "--html"];
    ends_with(0, &[&words[..], &[as_argument(&page)]].concat());
    (folder, page)
}

fn chromium() -> Option<&'static str> {
    let found = NAMES.into_iter().find(|name| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        println!("SKIPPED: no {} is installed", NAMES.join(", no "));
    }
    found
}

/// What the browser makes of a page, as HTML.
fn shown(chromium: &str, page: &Path, hash: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}#{hash}", page.display()))
        .stderr(Stdio::null())
        .output()
        .expect("it was found");
    let text = String::from_utf8(output.stdout).expect("a page is text");
    assert!(text.contains("<table id=\"lanes\"><thead>"), "the script has not run: {text}");
    text
}

/// The part of a page between these two texts.
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start} in {text}")) + start.len();
    let length = text[from..].find(end).unwrap_or_else(|| panic!("no {end} in {text}"));
    &text[from..from + length]
}

fn place(page: &str) -> &str {
    between(page, "<span id=\"where\">", "</span>")
}

/// Rows of the state that are marked as changed, or gone, without their tags.
fn marked(page: &str) -> Vec<String> {
    let state = between(page, "<section id=\"state\"", "</section>");
    let rows = state.split("<tr").skip(1).map(|row| row.split("</tr>").next().unwrap_or(row));
    let words = state.split("<div class=\"word").skip(1).map(|row| row.split("</div>").next().unwrap_or(row));
    let marked = rows.chain(words).filter(|row| {
        let class = row.split('>').next().unwrap_or("");
        class.contains("changed") || class.contains("gone")
    });
    marked.map(text_of).collect()
}

fn text_of(html: &str) -> String {
    let mut parts = html.split('<').map(|part| part.split_once('>').map_or("", |(_, text)| text));
    parts.next();
    let after_class = html.split_once('>').map_or("", |(_, rest)| rest.split('<').next().unwrap_or(""));
    let text = std::iter::once(after_class).chain(parts).filter(|part| !part.trim().is_empty());
    let text = text.collect::<Vec<_>>().join(" ").replace("&gt;", ">");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (_folder, page) = torn_read();
    let text = std::fs::read_to_string(&page).expect("it was written");
    for word in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!text.contains(word), "{word}");
    }
    assert!(!text.contains("{{"), "a place in the template was not filled");
}

#[test]
fn each_state_is_shown_with_what_its_step_changed() {
    let Some(chromium) = chromium() else { return };
    let (_folder, page) = torn_read();
    let start = shown(chromium, &page, "");
    assert_eq!(place(&start), "at the start");
    assert_eq!(marked(&start), [""; 0]);

    let cleared = shown(chromium, &page, "step=6");
    assert_eq!(place(&cleared), "step 6 of 22");
    let rows = marked(&cleared);
    assert!(rows.iter().any(|row| row == "[0] pte(x) 0x8000000123456827 [A P W U A NX] 0 [none]"), "{rows:?}");
    assert!(rows.iter().any(|row| row == "children of table 0x105 1 0"), "{rows:?}");
    assert!(!between(&cleared, "<body", ">").contains("at-end"));

    let faulted = marked(&shown(chromium, &page, "step=12"));
    assert!(faulted.iter().any(|row| row == "0x40000000 4K -> frame 0x123456 WUX"), "{faulted:?}");

    let end = shown(chromium, &page, "step=22");
    assert!(between(&end, "<body", ">").contains("at-end"));
    assert!(end.contains("<span class=\"rule\">✗ phantom-frame</span>"));
    let lanes = between(&end, "<table id=\"lanes\">", "</table>");
    assert_eq!(lanes.matches("class=\"breaks now\"").count(), 1, "the step that breaks the rule is marked");
    assert!(between(&end, "<p id=\"message\"", "</p>").contains("it is a mixture of two reads"));
}

#[test]
fn the_keyboard_steps_forwards_and_backwards() {
    let Some(chromium) = chromium() else { return };
    let (folder, page) = torn_read();
    let text = std::fs::read_to_string(&page).expect("it was written");
    for (keys, expected) in [
        (&["ArrowRight"; 3][..], "step 3 of 22"),
        (&["ArrowRight", "ArrowRight", "ArrowLeft"], "step 1 of 22"),
        (&["End", "ArrowRight", "ArrowLeft", "ArrowUp"], "step 20 of 22"),
        (&["End", "Home", "ArrowLeft", "PageDown"], "step 10 of 22"),
        (&["x", "Tab"], "at the start"),
    ] {
        // A reader who presses these keys.
        let presses: String = keys
            .iter()
            .map(|key| format!("document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}' }}));"))
            .collect();
        let pressed = folder.path().join("pressed.html");
        std::fs::write(&pressed, text.replace("</body>", &format!("<script>{presses}</script></body>")))
            .expect("a file can be written");
        assert_eq!(place(&shown(chromium, &pressed, "")), expected, "{keys:?}");
    }
}

#[test]
fn several_runs_are_on_one_page_and_numbers_out_of_range_do_no_harm() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("runs.html");
    ends_with(0, &["check", "table-free", "--trace", "never", "--html", as_argument(&page)]);
    let second = shown(chromium, &page, "run=2&step=30");
    assert!(between(&second, "<select", "</select>").contains("table-free at-once-paravirtual (tso): freed-table"));
    assert!(between(&second, "id=\"badges\">", "</span><span class=\"file").contains("x86-TSO"));
    assert!(place(&second).starts_with("step 30 of "));
    assert_eq!(place(&shown(chromium, &page, "run=99&step=-5")), "at the start");
    assert!(place(&shown(chromium, &page, "run=x&step=1000000")).starts_with("step 38 of 38"));
}

/// Names of the litmus file come into the page: none of them is markup.
#[test]
fn text_of_the_file_is_text_on_the_page() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (litmus, page) = (folder.path().join("a<b>&amp;.litmus"), folder.path().join("page.html"));
    let text = "X86_64 SB\n{}\nP0|P1;\nmovl $1,(x)|movl $1,(y);\nmovl (y),%eax|movl (x),%eax;\nforall (0:eax=1)\n";
    std::fs::write(&litmus, text).expect("a file can be written");
    ends_with(1, &["check", as_argument(&litmus), "--html", as_argument(&page)]);
    let shown = shown(chromium, &page, "step=1");
    assert!(between(&shown, "<h1 id=\"title\">", "</h1>").contains("a&lt;b&gt;&amp;amp;"), "{shown}");
    assert!(between(&shown, "<title>", "</title>").contains("a&lt;b&gt;&amp;amp;"));
}
