//! The protection of the gRPC port at the start: files, authority, certificates, first token.

use crate::auth::establish::establish;
use crate::auth::state_dir::StateDir;
use crate::auth::{self, Ca};
use crate::grpc::acceptor::{Certificates, OwnCertificate, Security};
use crate::store::Store;
use crate::{Error, Options};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The file with the token of the first administrator.
const ADMIN_TOKEN_FILE: &str = "admin-token";

/// The protection of the port, before the database is open.
pub(crate) enum Transport {
    Insecure,
    Tls(StateDir, Certificates),
}

impl Transport {
    /// Reads the files that are needed before anything is changed.
    pub(crate) fn prepare(options: &Options) -> Result<(Self, Security), Error> {
        if options.insecure {
            tracing::warn!(
                listen = %options.listen,
                "serving without encryption and credentials: every program on this machine may do everything"
            );
            return Ok((Self::Insecure, Security::Insecure));
        }
        let files = options.tls_files()?;
        let own = files.map(|(certificate, key)| OwnCertificate::new(certificate, key));
        let (certificates, receiver) = Certificates::load(own)?;
        let dir = StateDir::open(&options.data_dir()?)?;
        Ok((Self::Tls(dir, certificates), Security::Tls(receiver)))
    }

    /// Reads or makes the authority of the cluster, and begins to accept connections. The tasks keep
    /// its certificates in force.
    pub(crate) async fn protect(
        self,
        store: &Store,
        options: &Options,
        bound: SocketAddr,
        shutdown: &CancellationToken,
    ) -> Result<(Option<Arc<Ca>>, Vec<JoinHandle<()>>), Error> {
        let Self::Tls(dir, certificates) = self else {
            return Ok((None, Vec::new()));
        };
        let established = establish(store, &dir, SystemTime::now().into()).await?;
        let ca = Arc::new(established.ca);
        write_admin_token(store, &dir).await?;
        let advertised = options.advertised(bound);
        let names = advertised.map(|advertised| advertised.host().to_owned());
        let keeping =
            certificates.begin(Arc::clone(&ca), Vec::from_iter(names), shutdown.clone())?;
        tracing::info!(
            fingerprint = %ca.fingerprint(),
            cluster = ca.cluster(),
            new = established.is_new,
            "the authority of the cluster"
        );
        if established.is_new && store.head().await?.revision > 0 {
            tracing::warn!(
                "this database was used without TLS: upgrade its nodes and give each a join token \
                 (`cless node token create`); they keep their containers"
            );
        }
        let following = auth::follow::run(
            Arc::clone(&ca),
            established.stored,
            store.clone(),
            dir,
            shutdown.clone(),
        );
        Ok((
            Some(ca),
            vec![tokio::spawn(keeping), tokio::spawn(following)],
        ))
    }
}

/// Writes the token of the first administrator, if there is no token yet. It is not logged.
async fn write_admin_token(store: &Store, dir: &StateDir) -> Result<(), Error> {
    let Some(token) = auth::create_admin(store, true, "first start").await? else {
        return Ok(());
    };
    let file = dir.path_of(ADMIN_TOKEN_FILE);
    dir.replace_secret(ADMIN_TOKEN_FILE, &(token.reveal() + "\n"))?;
    tracing::info!(file = %file.display(), "the token of the first administrator is in a file");
    Ok(())
}
