//! What an owner tells the node's report.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Owner;
use crate::instance::guard::Instance;
use crate::instance::pool::View;
use crate::instance::report::{InstanceReport, InstanceState, VerifyOutcome, VersionReport};
use crate::instance::state::State;

impl Owner {
    pub(super) fn publish_view(&mut self) {
        let version = &self.member.version;
        let instances: Vec<(Arc<Instance>, InstanceReport)> = self
            .tenants
            .values()
            .filter_map(|tenant| {
                let report = InstanceReport {
                    id: tenant.instance.name().to_owned(),
                    service: version.service.clone(),
                    key: self.shared.key.clone(),
                    state: reported(tenant.state)?,
                    in_flight: 0,
                    created_at: tenant.created_at,
                    cold_start: tenant.instance.cold_start().cloned(),
                    container: tenant.container.clone(),
                };
                Some((tenant.instance.clone(), report))
            })
            .collect();
        let report = VersionReport {
            key: self.shared.key.clone(),
            version_uid: version.uid.clone(),
            image_digest: self.image_digest.as_deref().map(str::to_owned),
            last_failure: self.last_failure.clone().or_else(|| self.last_end.clone()),
            failures: self.backoff.failures(),
            backoff_until: self
                .backoff
                .remaining(Instant::now())
                .map(|left| SystemTime::now() + left),
            last_cold_start: self.last_cold_start.clone(),
            pull_progress: self.pull_progress.clone(),
            verify: self.proof.as_ref().map(|proof| VerifyOutcome {
                id: proof.id.clone(),
                result: proof.result.clone(),
            }),
        };
        *self.shared.view.lock() = View {
            instances,
            version: Some(report),
        };
        self.around.changed.send_modify(|count| *count += 1);
    }
}

fn reported(state: State) -> Option<InstanceState> {
    Some(match state {
        State::Creating => InstanceState::Creating,
        State::Starting => InstanceState::Starting,
        State::Probing => InstanceState::Probing,
        State::Ready => InstanceState::Ready,
        State::Pausing => InstanceState::Pausing,
        State::Paused => InstanceState::Paused,
        State::Resuming => InstanceState::Resuming,
        State::Draining => InstanceState::Draining,
        State::Stopping => InstanceState::Stopping,
        State::Failed => InstanceState::Failed,
        State::Gone => return None,
    })
}
