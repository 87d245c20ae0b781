//! `TokenService`: the tokens of people and programs.

use super::convert::{requests, trust};
use super::{Api, caller, now, page, status, validated};
use crate::auth;
use crate::domain::{Principal, Timestamp, Violations, name};
use cless_proto::token::TokenId;
use cless_proto::v1 as pb;
use cless_proto::v1::token_service_server::TokenService;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let caller = caller(&request)?;
        let pb::CreateTokenRequest {
            token,
            ttl,
            request_id,
            validate_only,
        } = request.into_inner();
        let mut violations = Violations::new();
        let new = trust::new_token(token, ttl, &mut violations);
        let options =
            requests::write_options(&caller, now(), validate_only, request_id, &mut violations);
        let (new, options) = validated(new.zip(options), violations)?;
        let (token, new) = auth::new_token(new.role, new.scope, new.description, new.ttl);
        let written = self
            .store
            .create_token(new, options)
            .await
            .map_err(status::store)?;
        self.auth.refresh(&self.store).await;
        let secret = if written.replayed || validate_only {
            String::new()
        } else {
            token.reveal()
        };
        Ok(Response::new(pb::CreateTokenResponse {
            token: Some(trust::token(&written.resource)),
            secret,
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(status::invalid_page)?;
        let list = if request.show_inactive {
            "all tokens"
        } else {
            "tokens"
        };
        let before = page::parsed_key(list, &request.page_token, |key| {
            let (time, id) = key.split_once('/')?;
            let time = Timestamp::from_micros(time.parse().ok()?);
            Some((time, TokenId::parse(id).ok()?))
        })
        .map_err(status::invalid_page)?;
        let found = self
            .store
            .list_tokens(size, before, request.show_inactive, now())
            .await
            .map_err(status::store)?;
        let next_page_token = page::next_token(&found, list, |token| {
            format!("{}/{}", token.create_time.micros(), token.id)
        });
        Ok(Response::new(pb::ListTokensResponse {
            tokens: found.items.iter().map(trust::token).collect(),
            next_page_token,
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::Token>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut violations = Violations::new();
        let id = violations.take("name", name::parse_token(&request.name));
        let options = requests::write_options(
            &caller,
            now(),
            request.validate_only,
            String::new(),
            &mut violations,
        );
        let (id, options) = validated(id.zip(options), violations)?;
        let written = self
            .store
            .revoke_token(&id, options)
            .await
            .map_err(status::store)?;
        self.auth.refresh(&self.store).await;
        Ok(Response::new(trust::token(&written.resource)))
    }

    async fn get_current_token(
        &self,
        request: Request<pb::GetCurrentTokenRequest>,
    ) -> Result<Response<pb::Token>, Status> {
        let caller = caller(&request)?;
        let Principal::Token { id, .. } = caller.principal() else {
            return Err(status::no_token());
        };
        let token = self.store.get_token(id).await.map_err(status::store)?;
        Ok(Response::new(trust::token(&token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_token_reads_back() {
        let id = TokenId::from_random([3; 12]);
        let read = name::parse_token(&name::token(&id));
        assert_eq!(read.expect("a token"), id);
        for bad in [
            "",
            "tokens/",
            "tokens/x",
            "tokens/hhhhhhhhhhhh/",
            "hhhhhhhhhhhh",
        ] {
            assert!(name::parse_token(bad).is_err(), "{bad}");
        }
    }
}
