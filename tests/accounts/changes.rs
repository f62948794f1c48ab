//! What another process changes counts within seconds; and what it may not change.

use std::sync::Arc;

use chrono::{Duration, NaiveDateTime};
use pengx::model::{Clock, RandomIds, Role, SystemClock, Token, TokenDigest, TokenId};
use pengx::operations::Registry;
use pengx::store::accounts;
use sha2::{Digest, Sha256};

use super::{PASSWORD, basic, on_both, secret};

struct Yesterday;

impl Clock for Yesterday {
    fn now(&self) -> NaiveDateTime {
        SystemClock.now() - Duration::hours(25)
    }
}

#[test]
fn a_revoked_token_a_changed_password_and_a_removed_user_are_refused_within_seconds() {
    on_both(|scene| {
        scene.add("root", Role::Admin);
        let first = format!("Bearer {}", scene.add("ann", Role::Operator));
        let second = format!("Bearer {}", scene.token("ann"));
        scene.wait(&first, 200);
        scene.wait(&second, 200);
        let tokens: Vec<_> =
            scene.registry.tokens().unwrap().into_iter().filter(|t| t.user.as_str() == "ann").collect();
        assert_eq!(tokens.len(), 2);
        scene.registry.revoke(tokens[0].id).unwrap();
        scene.wait(&first, 401);
        assert_eq!(scene.get(&second), 200);

        // Also a password that is remembered.
        assert_eq!(scene.get(&basic("ann", PASSWORD)), 200);
        scene.registry.set_password("ann", &secret("pass:word 둘")).unwrap();
        scene.wait(&basic("ann", PASSWORD), 401);
        assert_eq!((scene.get(&basic("ann", "pass:word 둘")), scene.get(&second)), (200, 200));

        let post = || scene.with(&second, "POST", "/vms/").status;
        assert_eq!(post(), 400);
        scene.registry.set_role("ann", Role::Viewer).unwrap();
        crate::harness::wait::wait_until("ann may only look", || Ok(post() == 403));

        scene.registry.remove("ann").unwrap();
        scene.wait(&second, 401);
        assert_eq!(scene.get(&basic("ann", "pass:word 둘")), 401);
        assert_eq!(scene.app.store().read(accounts::tokens).unwrap().len(), 1, "its tokens went too");
        // Another user of that name is another user.
        scene.registry.add("ann", &secret(PASSWORD), Role::Viewer).unwrap();
        scene.wait(&basic("ann", PASSWORD), 200);
        assert_eq!(scene.get(&second), 401);
    });
}

#[test]
fn a_token_is_good_until_it_expires() {
    on_both(|scene| {
        scene.add("ann", Role::Viewer);
        let past = Registry::new(scene.app.store(), Arc::new(Yesterday), Arc::new(RandomIds));
        let (_, ended) = past.create_token("ann", "ended an hour ago", Some(1)).unwrap();
        let (_, lives) = past.create_token("ann", "has a day left", Some(2)).unwrap();
        scene.wait(&format!("Bearer {}", lives.reveal()), 200);
        assert_eq!(scene.get(&format!("Bearer {}", ended.reveal())), 401);
        // One that ends while it is in use.
        let owner = scene.registry.find("ann").unwrap().id;
        // A machine that is slow may not get to see a short life; then a longer one is tried.
        let seen_alive = [3, 9, 27].into_iter().find(|seconds| {
            let (text, now) = (format!("lives {seconds} s"), SystemClock.now());
            let token = Token {
                id: TokenId(uuid::Uuid::new_v4()),
                owner,
                name: text.clone(),
                digest: TokenDigest(Sha256::digest(text.replace(' ', "-")).into()),
                created_at: now,
                expires_at: Some(now + Duration::seconds(*seconds)),
            };
            scene.app.store().note_tx(|c| accounts::insert_token(c, &token)).unwrap();
            let bearer = format!("Bearer {}", text.replace(' ', "-"));
            let mut alive = false;
            while SystemClock.now() < token.expires_at.unwrap() && !alive {
                alive = scene.get(&bearer) == 200;
            }
            if alive {
                scene.wait(&bearer, 401);
                assert!(SystemClock.now() >= token.expires_at.unwrap(), "refused too early");
            }
            alive
        });
        assert!(seen_alive.is_some());
        assert_eq!(scene.get(&format!("Bearer {}", lives.reveal())), 200);
    });
}

#[test]
fn accounts_are_kept_in_order() {
    on_both(|scene| {
        let (registry, good) = (&scene.registry, secret(PASSWORD));
        let said = |refused: pengx::error::Result<()>| {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind().name(), "invalid", "{refused}");
            refused.to_string()
        };
        assert_eq!(
            said(registry.add("a:b", &secret("short"), Role::Admin)),
            "name: must not have a colon; password: must have 8 to 1024 bytes"
        );
        for (password, fits) in [("1234567", false), ("비밀번", true), ("비밀", false), ("12345678", true)] {
            let name = format!("of {password}");
            assert_eq!(registry.add(&name, &secret(password), Role::Viewer).is_ok(), fits, "{password}");
        }
        assert!(registry.add("long", &secret(&"x".repeat(1024)), Role::Viewer).is_ok());
        assert!(registry.add("longer", &secret(&"x".repeat(1025)), Role::Viewer).is_err());
        for user in registry.users().unwrap() {
            registry.remove(user.name.as_str()).unwrap();
        }

        registry.add(" ann ", &good, Role::Admin).unwrap();
        assert_eq!(said(registry.add("ann", &good, Role::Viewer)), "name: there is a user ann already");
        assert_eq!(said(registry.set_role("bob", Role::Viewer)), "name: there is no user \"bob\"");
        assert_eq!(said(registry.set_password("bob", &good)), "name: there is no user \"bob\"");
        assert_eq!(said(registry.set_password("ann", &secret("short"))), "password: must have 8 to 1024 bytes");
        assert_eq!(said(registry.remove("bob")), "name: there is no user \"bob\"");
        assert_eq!(said(registry.create_token("bob", "", None).map(drop)), "name: there is no user \"bob\"");
        assert_eq!(
            said(registry.create_token("ann", "a\nb", None).map(drop)),
            "name: must not have control characters"
        );
        let nobody = TokenId(uuid::Uuid::from_u128(1));
        assert_eq!(said(registry.revoke(nobody)), format!("id: there is no token {nobody}"));

        // Alone it may become anything; with others there the last admin stays.
        registry.set_role("ann", Role::Viewer).unwrap();
        registry.set_role("ann", Role::Admin).unwrap();
        registry.add("bob", &good, Role::Operator).unwrap();
        let last = "name: ann is the last admin; make another user admin first";
        assert_eq!(said(registry.remove("ann")), last);
        assert_eq!(said(registry.set_role("ann", Role::Operator)), last);
        registry.set_role("ann", Role::Admin).unwrap();
        registry.set_role("bob", Role::Admin).unwrap();
        registry.set_role("ann", Role::Operator).unwrap();
        registry.remove("ann").unwrap();
        registry.remove("bob").unwrap();
        assert_eq!(registry.users().unwrap(), []);
    });
}
