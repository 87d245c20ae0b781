//! Calls of `TokenService`.

use cless_proto::v1 as pb;

use super::ApiClient;
use crate::error::{Error, Idempotency};

impl ApiClient {
    /// The token that the calls of this client present.
    pub(crate) async fn current_token(&self) -> Result<pb::Token, Error> {
        let operation = "check the token".to_owned();
        self.call(Idempotency::ReadOnly, operation, async || {
            let mut tokens = self.tokens.clone();
            tokens
                .get_current_token(pb::GetCurrentTokenRequest {})
                .await
        })
        .await
    }
}
