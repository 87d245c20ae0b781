//! Pause containers. Their image is imported when it is missing.

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveImageOptions,
};
use futures_util::TryStreamExt as _;
use tracing::info;

use super::create_body::sandbox_body;
use super::error::{CREATE_TIMEOUT, READ_TIMEOUT, REMOVE_TIMEOUT, with_timeout};
use super::ok_if_missing;
use super::pause_image::{ARCHITECTURE, CHANGES, PauseImage};
use crate::runtime::{Error, SandboxSpec};

/// Attempts to create a container: another node on the same engine may remove the image until a
/// container uses it.
const ATTEMPTS: usize = 3;

/// Creates a pause container and returns its id.
pub(super) async fn create(client: &bollard::Docker, spec: &SandboxSpec) -> Result<String, Error> {
    let image = build()?;
    let mut outcome = create_once(client, spec, &image).await;
    for _ in 1..ATTEMPTS {
        match outcome {
            Err(Error::NotFound(message)) if message.contains("No such image") => {}
            other => return other,
        }
        import(client, &image).await?;
        outcome = create_once(client, spec, &image).await;
    }
    outcome
}

async fn create_once(
    client: &bollard::Docker,
    spec: &SandboxSpec,
    image: &PauseImage,
) -> Result<String, Error> {
    let options = CreateContainerOptionsBuilder::default()
        .name(&spec.name)
        .build();
    let body = sandbox_body(spec, image.reference());
    let created =
        with_timeout(CREATE_TIMEOUT, client.create_container(Some(options), body)).await?;
    Ok(created.id)
}

async fn import(client: &bollard::Docker, image: &PauseImage) -> Result<(), Error> {
    let architecture = with_timeout(READ_TIMEOUT, client.version())
        .await?
        .arch
        .unwrap_or_default();
    if architecture != ARCHITECTURE {
        return Err(Error::Refused(format!(
            "the engine runs on {architecture}, and the pause program is built for {ARCHITECTURE} only"
        )));
    }
    info!(
        image = image.reference(),
        "importing the image of pause containers"
    );
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(image.repository)
        .tag(&image.tag)
        .changes(CHANGES.map(str::to_owned).to_vec())
        .build();
    let body = bollard::body_full(image.tar.clone().into());
    let steps = client.create_image(Some(options), Some(body), None);
    with_timeout(CREATE_TIMEOUT, steps.try_collect::<Vec<_>>())
        .await
        .map(|_| ())
}

/// Removes the image unless a container uses it.
pub(super) async fn remove_image(client: &bollard::Docker) -> Result<(), Error> {
    let reference = build()?.reference();
    let removed = client.remove_image(&reference, None::<RemoveImageOptions>, None);
    match ok_if_missing(with_timeout(REMOVE_TIMEOUT, removed).await.map(|_| ())) {
        // 409: the image is in use.
        Err(Error::Refused(_)) => Ok(()),
        other => other,
    }
}

fn build() -> Result<PauseImage, Error> {
    PauseImage::build().map_err(|error| Error::Refused(format!("the pause image: {error}")))
}
