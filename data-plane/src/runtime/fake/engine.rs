//! [`Runtime`] for the scripted engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::super::{
    Container, ContainerSpec, ContainerState, EngineEvent, Error, Executed, Image, PullStep,
    Runtime, Runtimes, SandboxSpec, label,
};
use super::{Call, Fake, Health, Script};

#[async_trait::async_trait]
impl Runtime for Fake {
    async fn engine(&self) -> Result<String, Error> {
        self.check_reachable()?;
        Ok("fake 1".to_owned())
    }

    async fn runtimes(&self) -> Result<Runtimes, Error> {
        let offered = self.inner.offered.lock().clone();
        Ok(Runtimes {
            default: offered.first().cloned().unwrap_or_default(),
            offered,
        })
    }

    async fn image(&self, image: &str) -> Result<Image, Error> {
        self.check_reachable()?;
        self.inner.images.find(image)
    }

    async fn pull(
        &self,
        image: &str,
        progress: &(dyn Fn(PullStep) + Send + Sync),
    ) -> Result<Option<String>, Error> {
        self.inner.images.pull(image, progress).await
    }

    async fn registry_digest(&self, image: &str) -> Result<String, Error> {
        self.check_reachable()?;
        self.inner.images.registry_digest(image)
    }

    async fn images_in_use(&self) -> Result<BTreeSet<String>, Error> {
        let containers = self.inner.containers.lock();
        let used = containers.values().map(|fixture| &fixture.image);
        Ok(used
            .filter_map(|image| self.inner.images.id(image))
            .collect())
    }

    async fn remove_image(&self, name: &str) -> Result<(), Error> {
        self.inner.images.remove(name);
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let lost = self.fault(Call::Create)?;
        if !spec.image.is_empty() {
            self.inner.images.find(&spec.image)?;
        }
        let script = self.inner.scripts.lock().pop_front();
        let script = script.unwrap_or(Script::Listens(Duration::ZERO));
        if script == Script::CreateRefused {
            return Err(Error::Refused("as scripted".to_owned()));
        }
        if self.inner.containers.lock().contains_key(&spec.name) {
            return Err(Error::NameTaken(spec.name.clone()));
        }
        let sandbox = match &spec.sandbox {
            Some(id) => Some(
                self.running_sandbox(id)
                    .ok_or_else(|| Error::NotFound(id.clone()))?,
            ),
            None => None,
        };
        let id = self.make(&spec.name, &spec.image, &spec.labels, sandbox, script);
        lost.map_or(Ok(id), Err)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<String, Error> {
        let lost = self.fault(Call::CreateSandbox)?;
        let id = self.make(&spec.name, "", &spec.labels, None, Script::NeverListens);
        lost.map_or(Ok(id), Err)
    }

    async fn remove_sandbox_image(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<(), Error> {
        let lost = self.fault(Call::Start)?;
        if self.state(name) == Some(ContainerState::Running) {
            return Ok(());
        }
        let (address, script) = {
            let mut containers = self.inner.containers.lock();
            let fixture = containers
                .get_mut(name)
                .ok_or_else(|| Error::NotFound(name.to_owned()))?;
            fixture.container.state = ContainerState::Running;
            if fixture.container.labels.contains_key(label::ROLE) {
                return Ok(());
            }
            let port = fixture.container.labels.get(label::PORT);
            let port = port.and_then(|port| port.parse().ok()).unwrap_or(8080);
            let address = SocketAddr::new(fixture.listens_at, port);
            (address, fixture.script.clone())
        };
        self.inner.starts.fetch_add(1, Ordering::SeqCst);
        let takes = *self.inner.start_takes.lock();
        match script {
            Script::Listens(after) => {
                let inner = self.inner.clone();
                let listening = tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let Ok(listener) = TcpListener::bind(address).await else {
                        return;
                    };
                    while let Ok((stream, _)) = listener.accept().await {
                        if let Some(visitors) = &*inner.visitors.lock() {
                            let _ = visitors.send(stream);
                        }
                    }
                });
                if let Some(fixture) = self.inner.containers.lock().get_mut(name) {
                    fixture.listening = Some(listening);
                }
            }
            Script::Exits(code) => self.kill(name, code),
            Script::NeverListens | Script::CreateRefused => {}
        }
        tokio::time::sleep(takes).await;
        lost.map_or(Ok(()), Err)
    }

    async fn pause(&self, name: &str) -> Result<(), Error> {
        let lost = self.fault(Call::Pause)?;
        let takes = *self.inner.pause_takes.lock();
        tokio::time::sleep(takes).await;
        self.transition(Call::Pause, name)?;
        lost.map_or(Ok(()), Err)
    }

    async fn unpause(&self, name: &str) -> Result<(), Error> {
        let lost = self.fault(Call::Unpause)?;
        self.transition(Call::Unpause, name)?;
        lost.map_or(Ok(()), Err)
    }

    async fn inspect(&self, name: &str) -> Result<Container, Error> {
        self.check_reachable()?;
        let containers = self.inner.containers.lock();
        let found = containers
            .get(name)
            .map(|fixture| fixture.container.clone());
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn list(&self, node: &str) -> Result<Vec<Container>, Error> {
        self.check_reachable()?;
        let containers = self.inner.containers.lock();
        Ok(containers
            .values()
            .map(|fixture| fixture.container.clone())
            .filter(|container| container.labels.get(label::NODE).map(String::as_str) == Some(node))
            .collect())
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        self.inner.graces.lock().push(grace);
        let lost = self.fault(Call::Stop)?;
        self.kill(name, 143);
        lost.map_or(Ok(()), Err)
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        let lost = self.fault(Call::Remove)?;
        if let Some(fixture) = self.inner.containers.lock().remove(name)
            && let Some(listening) = fixture.listening
        {
            listening.abort();
        }
        lost.map_or(Ok(()), Err)
    }

    async fn exec(&self, name: &str, _command: &[String]) -> Result<Executed, Error> {
        self.check_reachable()?;
        let containers = self.inner.containers.lock();
        let health = containers.get(name).and_then(|one| one.health.clone());
        let (code, output) = match health {
            Some(Health::Healthy) => (0, Vec::new()),
            Some(Health::Unhealthy(output)) => (1, vec![output]),
            None => return Err(Error::Refused("no such command".to_owned())),
        };
        Ok(Executed { code, output })
    }

    async fn file_capabilities(&self, _name: &str, _path: &str) -> Result<u64, Error> {
        Ok(0)
    }

    async fn log_tail(&self, _name: &str, _lines: usize) -> Result<Vec<String>, Error> {
        Ok(vec!["last words".to_owned()])
    }

    fn events(&self, _node: &str) -> BoxStream<'static, EngineEvent> {
        let events = self.inner.events.subscribe();
        let later = stream::unfold(events, |mut events| async {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        stream::once(async { EngineEvent::Connected })
            .chain(later)
            .boxed()
    }

    async fn ensure_network(
        &self,
        _name: &str,
        bridge: &str,
        _labels: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        self.check_reachable()?;
        Ok(bridge.to_owned())
    }

    async fn bridge(&self, network: &str) -> Result<String, Error> {
        Err(Error::NotFound(network.to_owned()))
    }

    async fn remove_network(&self, _name: &str) -> Result<(), Error> {
        Ok(())
    }
}
