//! Every URI and method of the resource table, for every role.

use pengx::dialects::pengx::resources::RESOURCES;
use pengx::model::Role;

use super::Scene;

const NOBODY: &str = "0f6a9c1e-0000-4000-8000-00000000ffff";

/// A URI that matches the pattern and names nothing that there is.
fn uri(pattern: &str) -> String {
    let mut uri = pattern.replace(":id", "4711").replace(":nic", "4711").replace(":name", "a.qcow2");
    for name in [":vm", ":pm", ":gvm", ":snap", ":bak", ":disk", ":task"] {
        uri = uri.replace(name, NOBODY);
    }
    uri
}

#[test]
fn every_row_of_the_table_knows_who_may() {
    let scene = Scene::sqlite();
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let tokens = roles.map(|role| format!("Bearer {}", scene.add(role.word(), role)));
    scene.wait("", 401);
    let mut seen = 0;
    for resource in RESOURCES {
        let (pattern, uri) = (resource.pattern, uri(resource.pattern));
        let words = resource.endpoints.iter().map(|e| e.method.word());
        let ground = pattern.starts_with("/storlinks/") || pattern.starts_with("/pms");
        for method in words.chain(["HEAD", "OPTIONS", "PATCH"]) {
            let reads = ["GET", "HEAD", "OPTIONS"].contains(&method);
            for nobody in ["", "Bearer x", "Basic YW5uOg=="] {
                let answer = scene.with(nobody, method, &uri);
                assert_eq!(answer.status, 401, "{method} {pattern} with {nobody:?}: {answer:?}");
            }
            for (role, token) in roles.iter().zip(&tokens) {
                let may = match role {
                    Role::Viewer => reads,
                    Role::Operator => reads || !ground,
                    Role::Admin => true,
                };
                if *role == Role::Admin && pattern == "/pms/update-authorized-keys/" && method != "OPTIONS" {
                    // It would write the keys of whoever runs this test.
                    continue;
                }
                let answer = scene.with(token, method, &uri);
                assert_eq!(answer.status == 403, !may, "{method} {pattern} as {role}: {answer:?}");
                assert_ne!(answer.status, 401, "{method} {pattern} as {role}");
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "{seen}");
    scene.app.assert_at_rest();
}
