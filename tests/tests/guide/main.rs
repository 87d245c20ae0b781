//! Checks of the pages: generated tables, links, length.
//!
//! A generated table is between `<!-- generated: NAME -->` and `<!-- end -->`. `make guide` writes
//! the tables, `make check` fails where a page differs from the code. [`table`] builds them from clap's
//! commands, the comments of the protos and the metrics registry.

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The name of a generated table, and the function that builds it.
type Table = (&'static str, fn() -> String);

/// The pages and their generated tables.
const PAGES: [(&str, &[Table]); 9] = [
    ("README.md", &[]),
    ("ARCHITECTURE.md", &[]),
    ("CONTRIBUTING.md", &[]),
    (
        "control-plane/README.md",
        &[
            ("flags", table::control_plane_flags),
            ("commands", table::control_plane_commands),
        ],
    ),
    (
        "data-plane/README.md",
        &[
            ("flags", table::data_plane_flags),
            ("metrics", table::metrics),
        ],
    ),
    (
        "cli/README.md",
        &[
            ("commands", table::cli_commands),
            ("deploy", table::deploy_flags),
        ],
    ),
    (
        "proto/README.md",
        &[
            ("settings", table::settings),
            ("version", table::version_spec),
        ],
    ),
    ("migrations/README.md", &[]),
    ("tests/README.md", &[]),
];
/// Maximum lines of `README.md` and of `ARCHITECTURE.md`.
const MAX_LINES: [(&str, usize); 2] = [("README.md", 160), ("ARCHITECTURE.md", 250)];
/// Characters of a line outside tables and code.
const LINE: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The page with `table` between the markers of `name`; `None` without such markers.
fn with_table(page: &str, name: &str, table: &str) -> Option<String> {
    let marker = format!("<!-- generated: {name} -->\n");
    let from = page.find(&marker)? + marker.len();
    let to = from + page[from..].find("<!-- end -->")?;
    Some([&page[..from], table, &page[to..]].concat())
}

#[test]
fn generated_tables_are_up_to_date() {
    let write = std::env::var_os("CLESS_GUIDE").is_some_and(|mode| mode == "write");
    let mut stale = Vec::new();
    for (page, tables) in PAGES {
        let mut text = read(page);
        let markers = text.matches("<!-- generated: ").count();
        assert_eq!(markers, tables.len(), "{page}: generated tables");
        for (name, table) in tables {
            let next = with_table(&text, name, &table())
                .unwrap_or_else(|| panic!("{page} has no markers of the table `{name}`"));
            if next != text {
                stale.push(format!("{page}: table `{name}`"));
                text = next;
            }
        }
        if write {
            fs::write(root().join(page), text).unwrap_or_else(|error| panic!("{page}: {error}"));
        }
    }
    let stale = stale.join("\n");
    assert!(
        write || stale.is_empty(),
        "these differ from the code, run `make guide`:\n{stale}"
    );
}

/// The anchors of a page, as GitHub derives them from headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn links_lead_to_files_and_headings() {
    for (page, _) in PAGES {
        let text = read(page);
        let folder = root().join(page);
        let folder = folder.parent().expect("a page is in a folder");
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = folder.join(file);
            assert!(file.is_empty() || target.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let there = if file.is_empty() {
                    text.clone()
                } else {
                    fs::read_to_string(&target).unwrap_or_else(|error| panic!("{link}: {error}"))
                };
                assert!(anchors(&there).contains(anchor), "{page}: {link}");
            }
        }
    }
}

#[test]
fn pages_are_short() {
    for (page, lines) in MAX_LINES {
        assert!(
            read(page).lines().count() <= lines,
            "{page}: over {lines} lines"
        );
    }
    for (page, _) in PAGES {
        let mut code = false;
        for (number, line) in (1..).zip(read(page).lines()) {
            code ^= line.trim_start().starts_with("```");
            let text = !code && !line.starts_with('|');
            assert!(
                !text || line.chars().count() <= LINE,
                "{page}:{number}: over {LINE} characters"
            );
        }
    }
}
