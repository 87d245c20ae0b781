//! The decision about a call, without sockets.

use proptest::prelude::*;

use super::*;
use crate::domain::{NodeName, Scope, Violations};

fn token(role: Role, scope: Option<&str>) -> Principal {
    let mut violations = Violations::new();
    let scope = scope.and_then(|services| {
        Scope::new("scope", vec![services.to_owned()], vec![], &mut violations)
    });
    Principal::Token {
        id: ApiToken::from_random([1; 12], [1; 32]).id().clone(),
        role,
        scope: scope.map(Arc::new),
    }
}

fn node() -> Principal {
    Principal::Node {
        id: "id-1".into(),
        name: NodeName::parse("n1").expect("a label"),
    }
}

fn caller(principal: Principal) -> Caller {
    Caller {
        origin: Origin {
            principal,
            peer: None,
            method: "/test".into(),
        },
        ended: CancellationToken::new(),
    }
}

#[test]
fn every_method_and_principal_has_the_expected_answer() {
    for row in permissions::PERMISSIONS {
        for role in Role::ALL {
            let permitted = match row.access {
                Access::Open => true,
                Access::Role(needed) | Access::NodeOrRole(needed) => role >= needed,
                Access::Node => false,
            };
            let answer = check_access(row.access, &token(role, None));
            assert_eq!(answer.is_ok(), permitted, "{} {role}", row.method);
        }
        let for_nodes = matches!(
            row.access,
            Access::Open | Access::Node | Access::NodeOrRole(_)
        );
        assert_eq!(
            check_access(row.access, &node()).is_ok(),
            for_nodes,
            "{}",
            row.method
        );
        let nobody = check_access(row.access, &Principal::Anonymous);
        assert_eq!(nobody.is_ok(), row.access == Access::Open, "{}", row.method);
        assert!(check_access(row.access, &Principal::Insecure).is_ok());
    }
}

#[test]
fn a_scope_excludes_other_services_and_lists_of_everything() {
    let limited = caller(token(Role::Deployer, Some("team-*")));
    let id = |text: &str| ServiceId::parse(text).expect("an id");
    assert!(limited.check_service(&id("team-a")).is_ok());
    let refused = limited.check_service(&id("other")).expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.to_string().contains("services/other"), "{refused}");
    let all = check_access(Access::NodeOrRole(Role::Viewer), limited.principal());
    assert!(matches!(all, Err(Refused::Scoped { .. })));
}

#[test]
fn a_node_speaks_only_of_itself() {
    let own = caller(node());
    assert!(own.check_node("id-1", "n1").is_ok());
    for (id, name) in [("id-2", "n1"), ("id-1", "n2"), ("", ""), ("id-1", "")] {
        let refused = own.check_node(id, name).expect_err("refused");
        assert_eq!(refused.reason(), "OTHER_NODE");
    }
    let admin = caller(token(Role::Admin, None));
    assert_eq!(admin.check_node("id-1", "n1"), Err(Refused::NotANode));
}

#[test]
fn a_missing_role_is_named() {
    let refused = check_access(Access::Role(Role::Deployer), &token(Role::Viewer, None));
    let text = refused.expect_err("refused").to_string();
    assert!(
        text.contains("the role deployer") && text.contains("has viewer"),
        "{text}"
    );
}

#[test]
fn a_header_is_a_bearer_token_or_refused() {
    let token = ApiToken::from_random([1; 12], [1; 32]).reveal();
    for good in [format!("Bearer {token}"), format!("bearer {token}")] {
        assert_eq!(bearer(good.as_bytes()), Ok(token.as_str()));
    }
    for bad in [
        &b""[..],
        b"Bearer",
        b"Basic eDp5",
        b"\xff\xfe \xff",
        token.as_bytes(),
    ] {
        assert_eq!(bearer(bad), Err(Refused::NoBearer), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_header_panics(header: Vec<u8>) {
        if let Ok(text) = bearer(&header) {
            let _ = ApiToken::parse(text);
        }
    }

    #[test]
    fn no_certificate_panics(der: Vec<u8>) {
        let _ = NodeIdentity::read(&CertificateDer::from(der));
    }
}
