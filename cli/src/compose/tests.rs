use std::collections::BTreeMap;
use std::time::Duration;

use cless_proto::v1 as pb;
use pb::readiness_probe::Kind;
use proptest::prelude::*;

use super::*;

const VARIABLES: &[(&str, &str)] = &[("SET", "value"), ("EMPTY", ""), ("HOME", "/home/me")];

fn variable(name: &str) -> Option<String> {
    let found = VARIABLES.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| (*value).to_owned())
}

fn env_file(path: &str) -> Result<Option<String>, String> {
    match path {
        "app.env" => Ok(Some(
            "# x\nA=file\nB='lit $SET'\nPORT=1\nHOME\nUNSET\n".to_owned(),
        )),
        "bad.env" => Ok(Some("A=1\nB C=2\n".to_owned())),
        "pipe" => Err("is not a regular file: give a file".to_owned()),
        _ => Ok(None),
    }
}

fn read_only(text: &str, only: &[&str]) -> Result<Plan, Remark> {
    let sources = Sources {
        variable: &variable,
        env_file: &env_file,
    };
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    read(text, &only, &sources)
}

/// A file of one service with these keys, indented by four.
fn service(keys: &str) -> String {
    format!("services:\n  web:\n    image: app:1\n{keys}")
}

fn one(keys: &str) -> (Import, Vec<String>) {
    let plan = read_only(&service(keys), &[]).unwrap_or_else(|error| panic!("{keys}{error}"));
    let mut services = plan.services;
    assert_eq!(services.len(), 1, "{keys}");
    (services.remove(0), texts(&plan.remarks))
}

fn spec(keys: &str) -> pb::VersionSpec {
    let (import, remarks) = one(keys);
    assert_eq!(remarks, Vec::<String>::new(), "{keys}");
    import.spec
}

fn texts(remarks: &[Remark]) -> Vec<String> {
    remarks.iter().map(ToString::to_string).collect()
}

fn error(keys: &str) -> String {
    match read_only(&service(keys), &[]) {
        Ok(plan) => panic!("{keys}: {plan:?}"),
        Err(error) => error.to_string(),
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    pairs.collect()
}

#[test]
fn every_key_that_cless_has_is_imported() {
    let (import, remarks) = one("    \
    entrypoint: /init --verbose 'two words'
    command: [serve, -p, \"80\"]
    user: \"1000:1000\"
    read_only: true
    init: true
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    pull_policy: always
    restart: unless-stopped
    cap_add: [NET_RAW]
    cap_drop: [ALL]
    security_opt: [\"no-new-privileges:true\"]
    dns: 10.0.0.53
    extra_hosts: [\"db:10.0.0.5\", \"v6=[fd00::1]\"]
    tmpfs: [/run, \"/tmp:size=64m,exec,nosuid\"]
    volumes:
      - type: tmpfs
        target: /scratch
        tmpfs: {size: 1048576}
    shm_size: 128mb
    ulimits:
      core: 0
      nofile: {soft: 1024, hard: 65536}
    mem_limit: 256m
    cpus: 0.5
    pids_limit: 100
    scale: 3
    ports: [\"127.0.0.1:8080:80/tcp\"]
    labels: {team: shop}
    healthcheck:
      test: [CMD, curl, -f, \"http://localhost:80/health\"]
      timeout: 5s
      start_period: 90s
    x-own: 1
");
    assert_eq!(remarks, Vec::<String>::new());
    let text = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let duration = |seconds| Duration::from_secs(seconds).try_into().ok();
    let expected = pb::VersionSpec {
        image: "app:1".to_owned(),
        port: 80,
        command: text(&["/init", "--verbose", "two words"]),
        args: text(&["serve", "-p", "80"]),
        user: "1000:1000".to_owned(),
        read_only_root: true,
        stop_signal: "SIGINT".to_owned(),
        stop_grace: duration(90),
        pull_policy: pb::version_spec::PullPolicy::Always.into(),
        cap_add: text(&["NET_RAW"]),
        dns: text(&["10.0.0.53"]),
        extra_hosts: map(&[("db", "10.0.0.5"), ("v6", "fd00::1")]),
        tmpfs: [("/run", 0), ("/tmp", 64 << 20), ("/scratch", 1 << 20)]
            .map(|(path, size)| (path.to_owned(), size))
            .into(),
        tmpfs_exec: text(&["/tmp"]),
        shm_bytes: 128 << 20,
        ulimits: [("core", 0, 0), ("nofile", 1024, 65536)]
            .map(|(name, soft, hard)| pb::Ulimit {
                name: name.to_owned(),
                soft,
                hard,
            })
            .into(),
        memory_bytes: 256 << 20,
        cpu_millis: 500,
        pids_limit: 100,
        readiness: Some(pb::ReadinessProbe {
            kind: Some(Kind::Http(pb::HttpProbe {
                path: "/health".to_owned(),
                host: "localhost:80".to_owned(),
                ..Default::default()
            })),
            timeout: duration(5),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(import.spec, expected);
    assert_eq!(import.settings.max_instances, Some(3));
    assert_eq!(import.settings.cold_start_timeout, duration(90));
    assert_eq!(import.labels, map(&[("team", "shop")]));
    for (field, line) in [
        ("version.spec.image", 3),
        ("version.spec.cap_add[0]", 13),
        ("version.spec.ulimits[1]", 26),
        ("version.spec.readiness.http.path", 34),
        ("service.settings.max_instances", 30),
        ("version.spec", 2),
    ] {
        assert_eq!(import.origin(field).line, line, "{field}");
    }
}

#[test]
fn without_init_the_process_is_pid_1_as_in_compose() {
    assert!(spec("").no_init);
    assert!(spec("    init: false\n").no_init);
    assert!(!spec("    init: true\n").no_init);
}

#[test]
fn variables_come_from_the_map_the_list_files_and_the_surroundings() {
    let maps = "    environment:\n      A: 1\n      B: true\n      C: \"$SET\"\n      HOME:\n      D: ''\n";
    let list = "    environment: [A=1, B=true, \"C=${SET}\", HOME, D=]\n";
    let expected = map(&[
        ("A", "1"),
        ("B", "true"),
        ("C", "value"),
        ("D", ""),
        ("HOME", "/home/me"),
    ]);
    assert_eq!(spec(maps).env, expected);
    assert_eq!(spec(list).env, expected);

    let (import, remarks) = one(
        "    ports: [\"80\"]\n    env_file:\n      - app.env\n      - {path: none.env, required: false}\n    environment: {A: own, UNSET: }\n",
    );
    let expected = map(&[("A", "own"), ("B", "lit $SET"), ("HOME", "/home/me")]);
    assert_eq!(import.spec.env, expected);
    assert_eq!(
        remarks,
        [
            "6: services.web.env_file: app.env:4: PORT is set by cless, to the port that is served, 80: remove it",
            "8: services.web.environment.UNSET: UNSET is not set here, and so left out: set it, or write it to .env",
        ]
    );
    assert_eq!(spec("    environment: {PORT: 3000}\n").port, 3000);
    for (keys, expected) in [
        (
            "    env_file: none.env\n",
            "4: services.web.env_file: none.env does not exist: create it, or set `required: false`",
        ),
        (
            "    env_file: bad.env\n",
            "4: services.web.env_file: bad.env:2: has white space in the name: write NAME=value",
        ),
        (
            "    env_file: pipe\n",
            "4: services.web.env_file: pipe: is not a regular file: give a file",
        ),
    ] {
        assert_eq!(error(keys), expected);
    }
}

#[test]
fn values_are_interpolated_as_compose_does() {
    let expand = |text: &str| {
        let mut expander = interpolate::Expander::new(&variable);
        let expanded = expander.expand(text);
        expanded.map(|text| (text, expander.unset.into_iter().collect::<Vec<_>>()))
    };
    for (text, expected) in [
        ("$SET ${SET} $$SET", "value value $SET"),
        (
            "${SET:-d} ${EMPTY:-d} ${EMPTY-d} ${NO:-d} ${NO-d}",
            "value d  d d",
        ),
        ("${NO:-${EMPTY:-${SET}}}!", "value!"),
        ("${SET:+yes}${EMPTY:+no}${EMPTY+yes}${NO+no}", "yesyes"),
        ("${SET:?m}${EMPTY?m}", "value"),
        ("${NO:-a:b/c?d}", "a:b/c?d"),
    ] {
        assert_eq!(expand(text), Ok((expected.to_owned(), vec![])), "{text}");
    }
    assert_eq!(
        expand("a${NO}b"),
        Ok(("ab".to_owned(), vec!["NO".to_owned()]))
    );
    for (text, problem) in [
        ("${NO:?set it}", "needs the variable NO: set it"),
        ("${EMPTY:?}", "needs the variable EMPTY"),
        ("${SET", "`${` has no `}`"),
        ("a$", "write `$$`"),
        ("${}", "has no name"),
        ("${1A}", "has no name"),
        ("${SET!}", "is not a variable"),
        (&"${NO:-".repeat(12), "has no `}`"),
        (
            &format!("{}x{}", "${NO:-".repeat(12), "}".repeat(12)),
            "deep",
        ),
    ] {
        let found = expand(text).unwrap_err();
        assert!(found.contains(problem), "{text}: {found}");
    }
    let (import, remarks) = one("    user: ${NO}\n");
    assert_eq!(import.spec.user, "");
    assert_eq!(
        remarks,
        [
            "4: services.web.user: the variable NO is not set, and so empty: set it, or write it to .env"
        ]
    );
}

#[test]
fn env_files_are_read_as_compose_reads_them() {
    let text = "\u{feff}# c\nA=1 # note\r\n  export B = two words \nC='a # $SET'\nD=\"x\\n\\$SET ${A}\" # c\nE=\"two\nlines\"\nF\nG=#no\nH=a#b\nI=$B\nJ=\n";
    let read = parse_dotenv(text, &variable).unwrap();
    let read: Vec<_> = read
        .iter()
        .map(|one| (one.line, &*one.name, one.value.as_deref()))
        .collect();
    assert_eq!(
        read,
        [
            (2, "A", Some("1")),
            (3, "B", Some("two words")),
            (4, "C", Some("a # $SET")),
            (5, "D", Some("x\n$SET 1")),
            (6, "E", Some("two\nlines")),
            (8, "F", None),
            (9, "G", Some("")),
            (10, "H", Some("a#b")),
            (11, "I", Some("two words")),
            (12, "J", Some("")),
        ]
    );
    for (text, line) in [
        ("A=1\n=2", 2),
        ("A B=1", 1),
        ("A=1\nB='x\ny", 2),
        ("A='x' y", 1),
        ("A=${B", 1),
        ("X=1\nA=\"x\ny\"\nB C=1", 4),
    ] {
        assert_eq!(parse_dotenv(text, &variable).unwrap_err().0, line, "{text}");
    }
    // Each line doubles the value.
    let mut doubling = "A=0123456789abcdef\n".to_owned();
    for _ in 0..40 {
        doubling.push_str("A=$A$A\n");
    }
    assert!(parse_dotenv(&doubling, &|_| None).is_err());
}

#[test]
fn one_port_is_served_and_the_others_are_listed() {
    for (keys, port) in [
        ("ports: [\"80\"]", 80),
        ("ports: [8080]", 8080),
        ("ports: [\"8080:80\"]", 80),
        ("ports: [22:22]", 22),
        ("ports: [\"[::1]:8080:80/tcp\"]", 80),
        ("ports: [{target: 80, published: \"8080\", mode: host}]", 80),
        ("ports: [\"8080-8080:80-80\"]", 80),
        ("expose: [\"9000\"]", 9000),
        ("ports: []\n    expose: [9000]", 9000),
        ("image: app:1", 0),
    ] {
        let keys = keys.strip_prefix("image: app:1").unwrap_or(keys);
        assert_eq!(spec(&format!("    {keys}\n")).port, port, "{keys}");
    }
    let (import, remarks) = one(
        "    ports:\n      - 3000:3000\n      - 222:22\n      - 53:53/udp\n      - 9000-9010\n",
    );
    assert_eq!(import.spec.port, 3000);
    assert_eq!(
        remarks,
        [
            "6: services.web.ports: only port 3000 is served, as the first: for port 22, deploy another service with --port 22",
            "7: services.web.ports: 53:53/udp: one TCP port is served: write it alone",
            "8: services.web.ports: 9000-9010: one TCP port is served: write it alone",
        ]
    );
    for bad in [
        "[http]",
        "[\"80:0\"]",
        "[70000]",
        "80",
        "[{published: 1}]",
        "[[80]]",
        "[\"\"]",
    ] {
        let found = error(&format!("    ports: {bad}\n"));
        assert!(found.starts_with("4: services.web.ports"), "{bad}: {found}");
    }
}

#[test]
fn services_that_listen_on_a_port_are_chosen() {
    let text = "\
services:
  My_App.web: {image: a, ports: [80]}
  db: {image: db}
  tool: {image: t, ports: [80], profiles: [debug]}
  off: {image: o, ports: [80], deploy: {replicas: 0}}
  built: {build: ., ports: [80]}
  my-app-web: {image: b, expose: [80]}
";
    let plan = read_only(text, &[]).unwrap();
    let ids = |plan: &Plan| {
        plan.services
            .iter()
            .map(|one| one.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&plan), ["my-app-web"]);
    assert_eq!(
        texts(&plan.remarks),
        [
            "2: services.My_App.web: imported as `my-app-web`: a name becomes part of a host name",
            "3: services.db: not imported: it has no `ports`, and cless runs HTTP servers; name it with --service if it is one",
            "4: services.tool: not imported: it has `profiles`; name it with --service to import it",
            "5: services.off: not imported: it has no replicas; name it with --service to import it",
            "6: services.built: not imported: it has `build` and no `image`; build and push the image, and name it in `image`",
            "7: services.my-app-web: not imported: another service is `my-app-web` too; rename it",
        ]
    );
    let plan = read_only(text, &["db", "tool", "off"]).unwrap();
    assert_eq!(ids(&plan), ["db", "tool", "off"]);
    assert_eq!(plan.services[2].settings.max_instances, None);
    assert_eq!(texts(&plan.remarks), Vec::<String>::new());
    let missing = read_only(text, &["web"]).unwrap_err().to_string();
    assert!(
        missing.contains("has no service `web`: it has My_App.web, db"),
        "{missing}"
    );
}

#[test]
fn a_variable_that_names_another_service_is_listed() {
    let read = |variable: &str| {
        let text = format!(
            "services:\n  web: {{image: a, ports: [80], environment: ['{variable}']}}\n  db: {{image: b}}\n"
        );
        let plan = read_only(&text, &["web"]).unwrap();
        texts(&plan.remarks).join("\n")
    };
    for named in [
        "A=db:5432",
        "A=postgres://u:p@db/x",
        "A=http://db",
        "DB_HOST=db",
        "A=é x,db:1",
    ] {
        assert!(read(named).contains("names the service `db`"), "{named}");
    }
    for other in [
        "A=db",
        "DB_NAME=db",
        "A=mydb:5432",
        "A=db.example.org:5432",
        "A=x@é",
        "HOST=dbs",
        "A=postgres://db:p@10.0.0.5/x",
    ] {
        assert_eq!(read(other), "", "{other}");
    }
}

#[test]
fn every_key_that_cless_lacks_is_listed_once_with_its_line() {
    for (key, when, remedy) in unsupported::KEYS {
        let value = match when {
            unsupported::Lost::Always => "{a: b}",
            unsupported::Lost::IfTrue => "true",
            unsupported::Lost::Each => "[a]",
        };
        let (_, remarks) = one(&format!("    {key}: {value}\n"));
        assert_eq!(remarks, [format!("4: services.web.{key}: {remedy}")]);
    }
    for (keys, remark) in [
        ("volumes: [\"data:/data\"]", "files do not outlive"),
        ("network_mode: host", "fixed by the node"),
        ("restart: \"no\"", "one-off jobs"),
        ("ulimts: {}", "did you mean `ulimits`?"),
        ("something: 1", "is not a key of a service: remove it"),
        ("cap_drop: [CHOWN]", "keeps this capability"),
        ("mem_limit: 0", "always has this limit"),
        ("tmpfs: \"/x:mode=1777,size=1m\"", "mode=1777"),
        ("entrypoint: \"\"", "cannot be emptied"),
        ("deploy: {mode: global}", "instances start where requests"),
        (
            "deploy: {resources: {reservations: {cpus: 1}}}",
            "nothing is reserved",
        ),
        ("pull_policy: build", "use always, missing or never"),
        (
            "healthcheck: {test: pg_isready}",
            "build it into the image as HEALTHCHECK",
        ),
        (
            "labels: [\"traefik.http.routers.application.rule=Host(`app.example.org`) && PathPrefix(`/a/much/longer/application`)\"]",
            "at most 63",
        ),
    ] {
        let (_, remarks) = one(&format!("    {keys}\n"));
        assert_eq!(remarks.len(), 1, "{keys}: {remarks:?}");
        assert!(
            remarks[0].starts_with("4: ") && remarks[0].contains(remark),
            "{keys}: {remarks:?}"
        );
    }
    for quiet in [
        "restart: always",
        "privileged: false",
        "network_mode: bridge",
        "healthcheck: {disable: true}",
        "healthcheck: {test: [NONE]}",
    ] {
        let _ = spec(&format!("    {quiet}\n"));
    }
}

#[test]
fn a_value_that_compose_refuses_is_an_error_with_its_line() {
    for (keys, expected) in [
        ("mem_limit: lots", "`lots` is not valid: write bytes"),
        ("cpus: -1", "`-1` is not valid"),
        ("read_only: maybe", "true or false"),
        ("environment: text", "expected a map, or a list"),
        ("environment: [\"=1\"]", "no name before `=`"),
        ("command: \"a 'b\"", "each quote closed"),
        ("ulimits: {nofile: {soft: 1}}", "needs `soft` and `hard`"),
        ("extra_hosts: [db]", "has no address"),
        ("healthcheck: {test: [curl]}", "does not begin with CMD"),
        ("healthcheck: {timeout: soon}", "a duration"),
        ("user: {a: b}", "expected a text"),
        ("user: ${NO:?who}", "needs the variable NO: who"),
    ] {
        let found = error(&format!("    {keys}\n"));
        assert!(
            found.starts_with("4: services.web.") && found.contains(expected),
            "{keys}: {found}"
        );
    }
    for (text, expected) in [
        ("", "1: is empty"),
        ("services:\n", "has no services"),
        ("- a\n", "expected a map"),
        ("services: {a: {image: x}\n", "is not YAML"),
        (
            "services:\n  a: {image: x, image: y}\n",
            "2: `image` is given twice",
        ),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("services:\n  a: !reset {image: x}\n", "2: the tag"),
        ("services: &a\n  b: *a\n", "2: an alias"),
        ("? [a]\n: b\n", "a key is not a text"),
    ] {
        let found = read_only(text, &[]).unwrap_err().to_string();
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn anchors_and_merged_keys_are_followed() {
    let text = "\
x-base: &base
  image: app:1
  environment: &env {A: '1'}
services:
  web:
    <<: *base
    ports: [80]
    environment:
      <<: [*env]
      B: '2'
";
    let plan = read_only(text, &[]).unwrap();
    assert_eq!(plan.services[0].spec.env, map(&[("A", "1"), ("B", "2")]));
    assert_eq!(plan.services[0].origin("version.spec.image").line, 2);
    assert_eq!(texts(&plan.remarks), Vec::<String>::new());
}

#[test]
fn aliases_and_nesting_are_bounded() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for at in 1..20 {
        let alias = format!("*a{}", at - 1);
        laughs.push_str(&format!("a{at}: &a{at} [{}]\n", vec![alias; 10].join(", ")));
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for at in 1..2000 {
        chain.push_str(&format!("a{at}: &a{at} [[*a{}]]\n", at - 1));
    }
    for text in [
        laughs,
        chain,
        "[".repeat(100_000),
        format!("services: {}", "{a: ".repeat(100_000)),
        "- ".repeat(100_000),
        format!(
            "services:\n  a:\n    image: x\n    dns: [{}]\n",
            "x, ".repeat(200_000)
        ),
    ] {
        let found = read_only(&text, &[]).unwrap_err().to_string();
        assert!(
            found.contains("over") || found.contains("not YAML"),
            "{found}"
        );
    }
    // Each use of a long value counts.
    let long = format!("x: &x \"{}\"\nservices:\n", "y".repeat(60_000));
    let uses: String = (0..200)
        .map(|at| format!("  s{at}: {{image: *x, ports: [80]}}\n"))
        .collect();
    let found = read_only(&(long + &uses), &[]).unwrap_err().to_string();
    assert!(found.contains("too long"), "{found}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = read_only(&text, &[]);
        let _ = parse_dotenv(&text, &variable);
        let _ = interpolate::Expander::new(&variable).expand(&text);
    }

    /// Words of YAML and of compose in any order reach further than random bytes.
    #[test]
    fn no_sequence_of_words_panics(words in prop::collection::vec(prop::sample::select(vec![
        "services:", "\n", "\n  ", "\n    ", "\n      ", "- ", "web:", "image: ", "x", "ports: ", "[", "]", "{", "}",
        ", ", "\"", "'", "${", "}", "$", "&a ", "*a", "<<: ", "80", "8080:80", "environment: ", "A=1", "tmpfs: ",
        "/x:size=", "ulimits: ", "healthcheck: ", "test: ", "deploy: ", "volumes: ", "!t ", "|", ">", "#", "\t", "é", "? ",
        "labels: ", "extra_hosts: ", "cpus: ", "1e999", "-1", "~", "env_file: ", "app.env", ": ", "=", "\\",
    ]), 0..80)) {
        let text = words.concat();
        let _ = read_only(&text, &[]);
        let _ = read_only(&format!("services:\n  web:\n    image: x\n    {text}"), &[]);
        let _ = parse_dotenv(&text, &variable);
    }

    #[test]
    fn scalars_of_any_kind_panic_nowhere(key in prop::sample::select(service::KEYS.to_vec()), value: String) {
        let value = serde_json::to_string(&value).unwrap();
        for value in [value.clone(), format!("[{value}]"), format!("{{{value}: {value}}}")] {
            let _ = read_only(&service(&format!("    {key}: {value}\n")), &[]);
        }
    }
}
