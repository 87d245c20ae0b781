//! The folder rules of ARCHITECTURE.md, held against the `use` lines of the code.
//!
//! The page has one fenced block per crate, opened by ```` ```folders CRATE ````, with one line per
//! folder: `folder -> the folders that it imports`. A folder is a directory in `src/`; a file directly
//! in `src/` is a folder of its own, and needs no line unless a folder imports it. `proxy/` is cut one
//! level deeper. The test fails if
//!
//! - a folder of the code has no line, or a line names a folder that does not exist,
//! - a folder imports one that its line does not name, or a line names one that is not imported,
//! - the lines form a circle,
//! - files import each other in a circle,
//! - a foreign crate is named outside its wall (the block ```` ```walls ````: `crate: paths`).
//!
//! Test code (`tests.rs`, `fuzz.rs`, `testing.rs`, `#[cfg(test)] mod … {`) is not subject to them.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cless_tests::paths;
use imports::{File, Graph};

/// The crates that have a block of rules: name and source folder.
const CRATES: [(&str, &str); 3] = [
    ("control-plane", "control-plane/src"),
    ("data-plane", "data-plane/src"),
    ("cli", "cli/src"),
];

#[test]
fn folders_import_only_what_the_page_allows() {
    let root = paths::source_dir().parent().expect("the workspace");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the page");
    let mut faults = Vec::new();
    for (name, folder) in CRATES {
        let files = sources(&root.join(folder));
        let graph = Graph::of(&files);
        let rules = rules(&page, &format!("folders {name}"));
        faults.extend(
            violations(&rules, &graph)
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
        for circle in graph.file_circles() {
            faults.push(format!(
                "{name}: a circle of files: {}",
                circle.join(" -> ")
            ));
        }
        for (foreign, walls) in self::rules(&page, "walls") {
            faults.extend(leaks(&foreign, &walls, folder, &files));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The lines of the block that `fence` opens: the name before `->` or `:`, and the names after it.
fn rules(page: &str, fence: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules = BTreeMap::<String, BTreeSet<String>>::new();
    let block = page
        .lines()
        .skip_while(|line| line.strip_prefix("```") != Some(fence));
    for line in block.skip(1).take_while(|line| !line.starts_with("```")) {
        let (names, allowed) = line
            .split_once("->")
            .or_else(|| line.split_once(": "))
            .unwrap_or((line, ""));
        let words = |text: &str| -> Vec<String> {
            let words = text.split([' ', ',']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        for name in words(names) {
            rules.entry(name).or_default().extend(words(allowed));
        }
    }
    rules
}

/// The differences between the rules and the imports, and the circles of the rules.
fn violations(rules: &BTreeMap<String, BTreeSet<String>>, graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = graph.folder_imports();
    let imported: BTreeSet<String> = used
        .iter()
        .filter(|(folder, _)| rules.contains_key(*folder))
        .flat_map(|(_, imports)| imports.keys().cloned())
        .collect();
    let is_free = |folder: &String| {
        graph.is_root_file(folder) && !rules.contains_key(folder) && !imported.contains(folder)
    };
    used.retain(|folder, _| !is_free(folder));
    for (folder, imports) in &used {
        let Some(allowed) = rules.get(folder) else {
            faults.push(format!(
                "the folder {folder} has no line in ARCHITECTURE.md"
            ));
            continue;
        };
        for (target, from) in imports {
            if !allowed.contains(target) {
                faults.push(format!(
                    "{folder} must not import {target}, but {from} does"
                ));
            }
        }
        for target in allowed {
            if !imports.contains_key(target) {
                faults.push(format!(
                    "{folder} does not import {target} any more: remove it from the line"
                ));
            }
        }
    }
    for folder in rules.keys().filter(|folder| !used.contains_key(*folder)) {
        faults.push(format!("the line of {folder} names no folder of the code"));
    }
    for circle in imports::circles(rules) {
        faults.push(format!("a circle between folders: {}", circle.join(" -> ")));
    }
    faults
}

/// The files outside its walls that name a foreign crate.
fn leaks(foreign: &str, walls: &BTreeSet<String>, folder: &str, files: &[File]) -> Vec<String> {
    let inside = |path: &str| walls.iter().any(|wall| path.starts_with(wall.as_str()));
    let names = |file: &File| file.code.contains(&format!("{foreign}::"));
    let paths = files
        .iter()
        .filter(|file| names(file))
        .map(|file| format!("{folder}/{}", file.path));
    paths
        .filter(|path| !inside(path))
        .map(|path| format!("{path} names {foreign}, which stops at {walls:?}"))
        .collect()
}

/// Every source file below `folder` that is not test code.
fn sources(folder: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .expect("below")
                .to_string_lossy()
                .into_owned();
            if name.ends_with(".rs") && !imports::is_test_code(&name) {
                files.push(File::new(
                    name,
                    &fs::read_to_string(&path).expect("a source file"),
                ));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

mod each_rule_broken_on_purpose {
    use super::*;

    const PAGE: &str = "```folders x\nproxy -> pool\npool -> runtime\nruntime\n```\n";

    fn faults(page: &str, change: &[(&str, &str)]) -> Vec<String> {
        let mut code = BTreeMap::from([
            (
                "lib.rs",
                "mod proxy; mod pool; mod runtime; use proxy::Server;",
            ),
            ("proxy/mod.rs", "use crate::pool::{self, Handle};"),
            ("pool/mod.rs", "mod actor;\nuse actor::Actor;"),
            (
                "pool/actor.rs",
                "fn f() -> crate::runtime::Docker { todo() }",
            ),
            (
                "runtime/mod.rs",
                "// use crate::proxy::Server;\nuse std::fmt;",
            ),
        ]);
        code.extend(change.iter().copied());
        let files: Vec<File> = code
            .into_iter()
            .map(|(path, text)| File::new(path.to_owned(), text))
            .collect();
        violations(&rules(page, "folders x"), &Graph::of(&files))
    }

    #[test]
    fn nothing_is_wrong_with_the_example() {
        assert_eq!(faults(PAGE, &[]), [""; 0]);
    }

    #[test]
    fn an_import_that_is_not_allowed() {
        let change = (
            "runtime/mod.rs",
            "use crate::{\n    pool::{actor::Actor},\n};",
        );
        assert_eq!(
            faults(PAGE, &[change]),
            ["runtime must not import pool, but runtime/mod.rs does"]
        );
        let inline = ("runtime/mod.rs", "fn f() { super::proxy::serve(); }");
        assert_eq!(
            faults(PAGE, &[inline]),
            ["runtime must not import proxy, but runtime/mod.rs does"]
        );
    }

    #[test]
    fn a_rule_that_nothing_needs() {
        let change = ("pool/actor.rs", "");
        let fault = "pool does not import runtime any more: remove it from the line";
        assert_eq!(faults(PAGE, &[change]), [fault]);
    }

    #[test]
    fn a_folder_without_a_line_and_a_line_without_a_folder() {
        let more = ("scale/mod.rs", "");
        assert_eq!(
            faults(PAGE, &[more]),
            ["the folder scale has no line in ARCHITECTURE.md"]
        );
        let page = PAGE.replace("\nruntime\n", "\nruntime\nengine\n");
        assert_eq!(
            faults(&page, &[]),
            ["the line of engine names no folder of the code"]
        );
    }

    #[test]
    fn a_circle_between_folders() {
        let page = PAGE.replace("\nruntime\n", "\nruntime -> proxy\n");
        let change = ("runtime/mod.rs", "use crate::proxy::Server;");
        assert_eq!(
            faults(&page, &[change]),
            ["a circle between folders: pool -> proxy -> runtime"]
        );
    }

    #[test]
    fn a_circle_of_files() {
        let files = [
            File::new("pool/mod.rs".to_owned(), "mod a; mod b; pub use a::A;"),
            File::new("pool/a.rs".to_owned(), "use super::b::B;\npub struct A(B);"),
            File::new(
                "pool/b.rs".to_owned(),
                "pub struct B;\nfn f(a: &crate::pool::A) {}",
            ),
        ];
        assert_eq!(
            Graph::of(&files).file_circles(),
            [["pool/a.rs", "pool/b.rs"]]
        );
    }

    #[test]
    fn a_foreign_type_outside_its_wall() {
        let files = [
            File::new("runtime/docker.rs".to_owned(), "use bollard::Docker;"),
            File::new("pool/mod.rs".to_owned(), "use bollard::Docker;"),
        ];
        let walls = rules(
            "```walls\nbollard: data-plane/src/runtime/docker\n```",
            "walls",
        );
        let found = leaks("bollard", &walls["bollard"], "data-plane/src", &files);
        let fault = r#"data-plane/src/pool/mod.rs names bollard, which stops at {"data-plane/src/runtime/docker"}"#;
        assert_eq!(found, [fault]);
    }
}
