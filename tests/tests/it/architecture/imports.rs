//! The imports of a crate, read from its text: which file names a path of which other file.
//!
//! A path begins with `crate`, `super` or `self`, in a `use` or inline, or with the name of a child
//! module. It is resolved to the file of the longest module path; a name that this file re-exports
//! (`pub use child::Name`) is followed to the file that defines it.

use std::collections::{BTreeMap, BTreeSet};

/// One source file.
pub(super) struct File {
    /// Relative to `src/`.
    pub(super) path: String,
    /// Its text without comments, strings and test modules.
    pub(super) code: String,
    /// The module that it is: `["proxy", "request"]`.
    module: Vec<String>,
}

impl File {
    pub(super) fn new(path: String, text: &str) -> Self {
        let module = path.trim_end_matches(".rs").split('/').map(str::to_owned);
        let mut module: Vec<String> = module.collect();
        if matches!(
            module.last().map(String::as_str),
            Some("mod" | "lib" | "main")
        ) {
            module.pop();
        }
        Self {
            code: code(text),
            path,
            module,
        }
    }
}

/// Whether a file holds tests or what only tests use.
pub(super) fn is_test_code(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "tests.rs" | "testing.rs"))
        || path.ends_with("fuzz.rs")
}

/// The text without comments, the content of strings, and modules of tests.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut test_attribute = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if test_attribute && trimmed.contains("mod ") && trimmed.ends_with('{') {
            break;
        }
        test_attribute = trimmed.starts_with("#[cfg(test)]");
        let mut in_string = false;
        let mut last = ' ';
        for (at, c) in line.char_indices() {
            if !in_string && line[at..].starts_with("//") {
                break;
            }
            if c == '"' && last != '\\' && last != '\'' {
                in_string = !in_string;
            } else if !in_string {
                code.push(c);
            }
            last = if last == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

/// Files and the files that they import.
pub(super) struct Graph {
    /// The path of each file, and the folder that owns it.
    folders: BTreeMap<String, String>,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn of(files: &[File]) -> Self {
        // `main.rs` and `lib.rs` are both the root; a root is found by `lib.rs` first.
        let by_module: BTreeMap<&[String], &File> = files
            .iter()
            .rev()
            .map(|file| (file.module.as_slice(), file))
            .collect();
        let paths: BTreeMap<&str, Vec<Path>> = files
            .iter()
            .map(|file| (file.path.as_str(), paths(file, &by_module)))
            .collect();
        let mut imports = BTreeMap::new();
        for file in files {
            let found = paths[file.path.as_str()].iter();
            let targets = found.filter_map(|path| resolve(path, &by_module, &paths, 0));
            let targets = targets.filter(|target| *target != file.path);
            imports.insert(file.path.clone(), targets.collect());
        }
        let directories: BTreeSet<&[String]> = files
            .iter()
            .filter(|file| file.path.contains('/'))
            .map(|file| &file.module[..file.path.matches('/').count()])
            .collect();
        let folders = files
            .iter()
            .map(|file| (file.path.clone(), folder(file, &directories)));
        Self {
            folders: folders.collect(),
            imports,
        }
    }

    /// Whether this folder is a single file directly in `src/`.
    pub(super) fn is_root_file(&self, folder: &str) -> bool {
        self.folders.contains_key(&format!("{folder}.rs"))
    }

    /// For each folder the folders that it imports, each with a file that does.
    pub(super) fn folder_imports(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut all = BTreeMap::<String, BTreeMap<String, String>>::new();
        for (file, folder) in &self.folders {
            let imports = all.entry(folder.clone()).or_default();
            let targets = self.imports[file]
                .iter()
                .map(|target| &self.folders[target]);
            for target in targets.filter(|target| *target != folder) {
                imports
                    .entry(target.clone())
                    .or_insert_with(|| file.clone());
            }
        }
        all
    }

    /// Groups of files that import each other, each sorted. A file and the files of its own
    /// submodules are one subject: what these two import of each other does not count.
    pub(super) fn file_circles(&self) -> Vec<Vec<String>> {
        let mut edges = self.imports.clone();
        for (file, imports) in &mut edges {
            imports.retain(|other| !contains(file, other) && !contains(other, file));
        }
        circles(&edges)
    }
}

/// Whether `inner` is a submodule of `outer`: `pool/actor.rs` of `pool/mod.rs` or `pool.rs`.
fn contains(outer: &str, inner: &str) -> bool {
    let dir = outer.trim_end_matches(".rs");
    let dir = dir
        .strip_suffix("mod")
        .or_else(|| dir.strip_suffix("lib"))
        .unwrap_or(dir);
    let dir = dir.trim_end_matches('/');
    dir.is_empty()
        || inner
            .strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with('/'))
}

/// The folder that owns a file. `proxy/` is cut one level deeper than the others: its folders and
/// the files directly in it each have a line.
fn folder(file: &File, directories: &BTreeSet<&[String]>) -> String {
    let module = &file.module;
    let depth = match module.first().map(String::as_str) {
        Some("proxy") => module.len().min(2),
        Some(first) => usize::from(directories.contains(&[first.to_owned()][..])),
        None => 0,
    };
    match depth {
        0 => file.path.trim_end_matches(".rs").to_owned(),
        depth => module[..depth].join("/"),
    }
}

/// A path of the code: the module where it begins, and its names.
type Path = (Vec<String>, Vec<String>, bool);

/// Every path of a file that leads to a module of the crate; `true`: it is re-exported.
fn paths(file: &File, by_module: &BTreeMap<&[String], &File>) -> Vec<Path> {
    let mut found = Vec::new();
    let code = &file.code;
    let mut rest = 0;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    while rest < code.len() {
        let Some(start) = code[rest..].find(is_name).map(|at| rest + at) else {
            break;
        };
        let end = code[start..]
            .find(|c| !is_name(c))
            .map_or(code.len(), |at| start + at);
        let word = &code[start..end];
        rest = end;
        let before = code[..start].trim_end();
        if word == "use" {
            let tree = code[end..].split(';').next().unwrap_or_default();
            let line = before.rsplit(['\n', ';', '}']).next().unwrap_or_default();
            let mut names = Vec::new();
            expand(tree, &mut Vec::new(), &mut names);
            found.extend(names.into_iter().map(|names| (names, line.contains("pub"))));
            rest = end + tree.len();
        } else if matches!(word, "crate" | "super")
            && code[end..].starts_with("::")
            && !before.ends_with("::")
            && !before.ends_with("(in")
        {
            let tail = &code[start..];
            let stop = tail.find(|c| !is_name(c) && c != ':').unwrap_or(tail.len());
            let names = tail[..stop].split("::").map(str::to_owned).collect();
            found.push((names, false));
        }
    }
    let located = found.into_iter().filter_map(|(names, exported)| {
        // `super` within a module that the file itself declares.
        let inline = |name: &String| code.contains(&format!("mod {name} {{"));
        if names[0] == "super" && names.get(1).is_some_and(inline) {
            return None;
        }
        let mut names = names.into_iter().peekable();
        let mut base = file.module.clone();
        match names.peek()?.as_str() {
            "crate" => base.clear(),
            "self" | "super" => {}
            child => {
                base.push(child.to_owned());
                by_module.get(base.as_slice())?;
                base.pop();
            }
        }
        while let Some(name) =
            names.next_if(|name| matches!(name.as_str(), "crate" | "self" | "super"))
        {
            if name == "super" {
                base.pop();
            }
        }
        Some((base, names.collect(), exported))
    });
    located.collect()
}

/// The paths of a `use` tree.
fn expand(tree: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    let (head, group) = tree
        .split_once('{')
        .map_or((tree, None), |(head, rest)| (head, Some(rest)));
    let depth = prefix.len();
    let head = head.split(" as ").next().unwrap_or_default();
    let names = head
        .split("::")
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "*");
    prefix.extend(names.map(str::to_owned));
    match group {
        None if prefix.is_empty() => {}
        None => found.push(prefix.clone()),
        Some(group) => {
            let group = group.trim_end().strip_suffix('}').unwrap_or(group);
            let (mut open, mut start) = (0_u32, 0);
            for (at, c) in group.char_indices() {
                match c {
                    '{' => open += 1,
                    '}' => open = open.saturating_sub(1),
                    ',' if open == 0 => {
                        expand(&group[start..at], prefix, found);
                        start = at + 1;
                    }
                    _ => {}
                }
            }
            expand(&group[start..], prefix, found);
        }
    }
    prefix.truncate(depth);
}

/// The file that defines what a path names.
fn resolve(
    (base, names, _): &Path,
    by_module: &BTreeMap<&[String], &File>,
    paths: &BTreeMap<&str, Vec<Path>>,
    depth: u32,
) -> Option<String> {
    let mut module = base.clone();
    let mut names = names.iter().filter(|name| *name != "self").peekable();
    while let Some(name) = names.peek() {
        module.push((*name).clone());
        if !by_module.contains_key(module.as_slice()) {
            module.pop();
            break;
        }
        names.next();
    }
    let file = by_module.get(module.as_slice())?;
    let exports = paths.get(file.path.as_str()).into_iter().flatten();
    let export = names.next().and_then(|name| {
        let mut exports =
            exports.filter(|(_, path, exported)| *exported && path.last() == Some(name));
        exports.next().filter(|_| depth < 8)
    });
    match export {
        Some(export) => resolve(export, by_module, paths, depth + 1),
        None => Some(file.path.clone()),
    }
}

/// The groups of names of which each reaches the others (strongly connected components of more
/// than one), each sorted.
pub(super) fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| -> BTreeSet<&String> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = edges.get(from).into_iter().flatten().collect();
        while let Some(name) = open.pop() {
            if seen.insert(name) {
                open.extend(edges.get(name).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        edges.keys().map(|name| (name, reach(name))).collect();
    let mut found = BTreeSet::new();
    for (name, seen) in &reached {
        if seen.contains(name) {
            let mutual = seen
                .iter()
                .filter(|other| reached.get(**other).is_some_and(|back| back.contains(name)));
            found.insert(mutual.map(|other| (*other).clone()).collect::<Vec<_>>());
        }
    }
    found
        .into_iter()
        .filter(|circle| circle.len() > 1)
        .collect()
}
