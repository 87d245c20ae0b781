//! The pool's part of the node report.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::PoolActor;
use crate::instance::Instance;
use crate::instance::state::State;
use crate::pool::shared::View;
use crate::report::{InstanceReport, InstanceState, VerifyOutcome, VersionReport};
use crate::route::PullPolicy;

impl PoolActor {
    pub(super) fn publish_view(&mut self) {
        let version = &self.membership.version;
        let instances: Vec<(Arc<Instance>, InstanceReport)> = self
            .instances
            .values()
            .filter_map(|entry| {
                let report = InstanceReport {
                    id: entry.instance.name().to_owned(),
                    service: version.service.clone(),
                    key: self.shared.key.clone(),
                    state: reported(entry.state)?,
                    in_flight: 0,
                    created_at: entry.created_at,
                    cold_start: entry.instance.cold_start().cloned(),
                    container: entry.container_id.clone(),
                };
                Some((entry.instance.clone(), report))
            })
            .collect();
        let report = VersionReport {
            key: self.shared.key.clone(),
            version_uid: version.uid.clone(),
            image_digest: self.image_digest.as_deref().map(str::to_owned),
            image_id: self.pinned_id(),
            image_generation: version.image_generation,
            last_failure: self.last_failure.clone().or_else(|| self.last_exit.clone()),
            failures: self.backoff.failures(),
            backoff_until: self
                .backoff
                .remaining(Instant::now())
                .map(|left| SystemTime::now() + left),
            last_cold_start: self.last_cold_start.clone(),
            pull_progress: self.pull_progress.clone(),
            verify: self.verification.as_ref().map(|one| VerifyOutcome {
                id: one.id.clone(),
                result: one.result.clone(),
            }),
            port: self.port_in_force,
        };
        *self.shared.view.lock() = View {
            instances,
            version: Some(report),
            warning: self.image_warning.clone(),
        };
        self.context.report_changed();
    }

    /// The image id that the version runs on this node; `None` if it runs by digest.
    fn pinned_id(&self) -> Option<String> {
        let version = &self.membership.version;
        let by_digest = version.image_digest.is_some() || self.image_digest.is_some();
        if by_digest && version.spec.pull_policy != PullPolicy::Never {
            return None;
        }
        let pins = &self.context.engine.pins;
        let id = pins.get(&version.uid, version.image_generation)?;
        Some(id.to_string())
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
