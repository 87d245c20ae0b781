//! A container as the engine describes it. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum,
};

use super::create_body::NETWORK_OF;
use crate::runtime::{Container, ContainerState, Exit, Healthcheck, label};

/// Maximum length of a line of container output.
const LOG_LINE_BYTES: usize = 512;

/// The engine's time limit of a HEALTHCHECK that names none.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// The HEALTHCHECK of a container: `CMD` with arguments, or `CMD-SHELL` with a line for the image's
/// shell. `NONE` and an empty test mean that there is none.
fn healthcheck(config: &ContainerConfig) -> Option<Healthcheck> {
    let check = config.healthcheck.as_ref()?;
    let (kind, words) = check.test.as_ref()?.split_first()?;
    let command = match kind.as_str() {
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            command.extend(words.iter().cloned());
            command
        }
        _ => return None,
    };
    let timeout = check.timeout.and_then(|nanos| u64::try_from(nanos).ok());
    let timeout = timeout.filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    (!words.is_empty()).then_some(Healthcheck {
        command,
        timeout: timeout.unwrap_or(HEALTHCHECK_TIMEOUT),
    })
}

/// Converts the response to an inspection.
pub(super) fn from_inspect(found: ContainerInspectResponse) -> Container {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|net| net.networks);
    let mode = found.host_config.and_then(|host| host.network_mode);
    let healthcheck = found.config.as_ref().and_then(healthcheck);
    let labels = labels(found.config.and_then(|config| config.labels));
    Container {
        id: found.id.unwrap_or_default(),
        name: name_of(&labels, found.name.as_deref().unwrap_or_default()),
        healthcheck,
        program: found.path.unwrap_or_default(),
        labels,
        state: match state.status {
            Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
            Some(ContainerStateStatusEnum::RUNNING) => ContainerState::Running,
            Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: address_on(mode.as_deref(), networks),
        sandbox: sandbox_of(mode),
        exit: Exit {
            code: state
                .exit_code
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(-1),
            oom_killed: state.oom_killed.unwrap_or(false),
        },
    }
}

/// Converts an entry of a container list.
pub(super) fn from_summary(found: ContainerSummary) -> Container {
    let networks = found.network_settings.and_then(|net| net.networks);
    let mode = found.host_config.and_then(|host| host.network_mode);
    let names = found.names.unwrap_or_default();
    let labels = labels(found.labels);
    Container {
        id: found.id.unwrap_or_default(),
        name: name_of(&labels, names.first().map_or("", String::as_str)),
        labels,
        state: match found.state {
            Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
            Some(ContainerSummaryStateEnum::RUNNING) => ContainerState::Running,
            Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
            _ => ContainerState::Exited,
        },
        address: address_on(mode.as_deref(), networks),
        sandbox: sandbox_of(mode),
        exit: Exit::default(),
        healthcheck: None,
        program: String::new(),
    }
}

/// The name given at the creation: the label, or the engine's name for a container without it.
fn name_of(labels: &BTreeMap<String, String>, engine_name: &str) -> String {
    let known = labels.get(label::INSTANCE).cloned();
    known.unwrap_or_else(|| engine_name.trim_start_matches('/').to_owned())
}

fn labels(found: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    found.unwrap_or_default().into_iter().collect()
}

/// The id of the sandbox that a network mode refers to.
fn sandbox_of(network_mode: Option<String>) -> Option<String> {
    let id = network_mode?.strip_prefix(NETWORK_OF)?.to_owned();
    Some(id)
}

/// The address on the network that the container was created on. Others may have connected it to
/// further networks.
fn address_on(
    network_mode: Option<&str>,
    networks: Option<HashMap<String, bollard::models::EndpointSettings>>,
) -> Option<std::net::IpAddr> {
    let endpoint = networks?.remove(network_mode?)?;
    endpoint.ip_address?.parse().ok()
}

/// The last `count` non-empty lines of raw output, each cut at [`LOG_LINE_BYTES`].
pub(super) fn last_lines(text: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| {
            let end = line.floor_char_boundary(LOG_LINE_BYTES);
            line[..end].to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::create_body::with_name;
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_in_order_and_cuts_long_ones() {
        let long = "x".repeat(2 * LOG_LINE_BYTES);
        let text = format!("one\n\ntwo\nthree\n{long}\n");
        let tail = last_lines(text.as_bytes(), 3);
        assert_eq!(tail[..2], ["two", "three"]);
        assert_eq!(tail[2].len(), LOG_LINE_BYTES);
    }

    #[test]
    fn invalid_utf8_does_not_break_the_tail() {
        assert_eq!(last_lines(b"\xff\xfe ok\n", 20).len(), 1);
    }

    #[test]
    fn a_healthcheck_is_a_command_or_a_line_for_the_shell() {
        let check = |test: &[&str], timeout, shell: &[&str]| {
            let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let config = ContainerConfig {
                healthcheck: Some(bollard::models::HealthConfig {
                    test: Some(words(test)),
                    timeout,
                    ..Default::default()
                }),
                shell: (!shell.is_empty()).then(|| words(shell)),
                ..Default::default()
            };
            let found = healthcheck(&config)?;
            Some((found.command.join(" "), found.timeout.as_secs()))
        };
        let found = |command: &str, seconds| Some((command.to_owned(), seconds));
        assert_eq!(check(&["CMD", "/ok", "-q"], None, &[]), found("/ok -q", 30));
        assert_eq!(
            check(&["CMD-SHELL", "a && b"], Some(2_000_000_000), &[]),
            found("/bin/sh -c a && b", 2)
        );
        assert_eq!(
            check(&["CMD-SHELL", "a"], Some(0), &["/bin/bash", "-lc"]),
            found("/bin/bash -lc a", 30)
        );
        for none in [&[][..], &["NONE"], &["CMD"], &["CMD-SHELL"], &["?", "a"]] {
            assert_eq!(check(none, None, &[]), None, "{none:?}");
        }
        assert_eq!(healthcheck(&ContainerConfig::default()), None);
    }

    #[test]
    fn a_container_in_a_sandbox_is_known_by_its_network() {
        let sandbox = |mode: &str| sandbox_of(Some(mode.to_owned()));
        assert_eq!(sandbox("container:0123abcd").as_deref(), Some("0123abcd"));
        assert_eq!(sandbox("cless-net"), None);
    }

    #[test]
    fn the_address_is_that_of_the_creations_network_whatever_else_was_connected() {
        let endpoint = |address: &str| bollard::models::EndpointSettings {
            ip_address: Some(address.to_owned()),
            ..Default::default()
        };
        let others = (0..20).map(|n| (format!("other{n}"), endpoint(&format!("10.9.0.{n}"))));
        let own = ("cless-n1".to_owned(), endpoint("10.1.0.2"));
        let networks: HashMap<_, _> = others.clone().chain([own]).collect();
        let address = address_on(Some("cless-n1"), Some(networks));
        assert_eq!(address, "10.1.0.2".parse().ok());
        assert_eq!(address_on(Some("cless-n1"), Some(others.collect())), None);
        assert_eq!(address_on(None, None), None);
    }

    #[test]
    fn a_container_is_known_by_its_label_after_a_rename() {
        let labels: BTreeMap<_, _> = with_name(&BTreeMap::new(), "cless-a").into_iter().collect();
        assert_eq!(name_of(&labels, "/renamed"), "cless-a");
        assert_eq!(name_of(&BTreeMap::new(), "/older"), "older");
    }
}
