//! Every relative link in the documentation leads to a file.
#![cfg(test)]

use std::path::{Path, PathBuf};

use crate::cargo::workspace;

/// The targets of the Markdown links in `text` that name files here, without their anchors.
fn file_links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    ends.map(|(target, _)| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains(':'))
        .collect()
}

fn markdown_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the workspace can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn relative_links_lead_somewhere() {
    let mut dead = Vec::new();
    let files = markdown_files();
    assert!(files.iter().any(|file| file.ends_with("README.md")));
    for file in files {
        let text = std::fs::read_to_string(&file).expect("documentation is text");
        let folder = file.parent().unwrap_or(Path::new("."));
        for link in file_links(&text).into_iter().filter(|link| !folder.join(link).exists()) {
            dead.push(format!("{}: {link}", file.display()));
        }
    }
    assert_eq!(dead, [""; 0]);
}

#[test]
fn links_are_found() {
    let text = "[a](x/y.md) and [b](https://example.org) [c](#here) [d](z.md#there)\n[e](w)";
    assert_eq!(file_links(text), ["x/y.md", "z.md", "w"]);
}
