//! The operator's web pages, beside the API.

use pengx::config::VirtDancer;

use super::{Said, Scene};

fn scene(prefix: &str) -> (Scene, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("secret", "outside"),
        ("old/index.html", "<p>old"),
        ("old/app.js", "old()"),
        ("old/noVNC/include/rfb.js", "rfb()"),
        ("old/vm", "a file where the API is"),
        ("old/.git/config", "hidden"),
        ("new/index.html", "<p>new"),
        ("new/main.js", "new()"),
    ] {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let [ui, ui_new] = ["old", "new"].map(|name| Some(dir.path().join(name)));
    (Scene::with(VirtDancer { ui, ui_new, ..VirtDancer::default() }, prefix), dir)
}

#[track_caller]
fn is(answer: &Said, kind: &str, text: &str) {
    let seen = answer.header("content-type").unwrap_or_default();
    assert!(answer.status == 200 && seen.starts_with(kind) && answer.body == text, "{answer:?}");
}

#[test]
fn pages_are_served_without_login() {
    let (scene, _dir) = scene("");
    let get = |path: &str| scene.ask("", "GET", path, "");
    for path in ["/", "/api", "/api/"] {
        let root = get(path);
        assert_eq!(
            (root.status, root.header("location"), root.body.as_str()),
            (302, Some("/index.html"), ""),
            "{path}"
        );
    }
    is(&get("/index.html"), "text/html", "<p>old");
    is(&get("/app.js"), "text/javascript", "old()");
    is(&get("/noVNC/include/rfb.js?v=1"), "text/javascript", "rfb()");
    for path in ["/ui/", "/ui", "/ui/index.html", "/ui/dashboard", "/ui/vm-detail/0f6a9c1e-0000-4000-8000-00000000ffff"]
    {
        is(&get(path), "text/html", "<p>new");
    }
    is(&get("/ui/main.js"), "text/javascript", "new()");
    let head = scene.ask("", "HEAD", "/app.js", "");
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("5")));
    // The API goes before files of its names.
    get("/vm").login();
    assert_eq!(scene.get("/vm").ok().as_array().unwrap().len(), 2);
    // And what is neither is told as ever.
    get("/nothing.js").told(404, "Not Found", "/nothing.js");
    for (method, path) in [("POST", "/app.js"), ("DELETE", "/ui/"), ("POST", "/ui/dashboard"), ("POST", "/")] {
        scene.ask("root", method, path, "").told(404, "Not Found", path);
    }
}

#[test]
fn nothing_else_is_served() {
    let (scene, dir) = scene("");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("old/dangling.js")).unwrap();
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/noVNC/../../secret",
        "/noVNC/..%2f..%2fsecret",
        "//../secret",
        "/ui/../../secret",
        "/ui/%2e%2e/%2e%2e/secret",
        "/.git/config",
        "/%2egit/config",
        "/dangling.js",
        "/app.js%00",
        "/noVNC",
    ] {
        let answer = scene.ask("", "GET", path, "");
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        assert!(!answer.body.contains("outside") && !answer.body.contains("hidden"), "{path}: {answer:?}");
    }
}

#[test]
fn the_root_leads_to_the_pages_wherever_they_are() {
    let (scene, _dir) = scene("/vd");
    for path in ["/vd", "/vd/"] {
        let root = scene.ask("", "GET", path, "");
        assert_eq!((root.status, root.header("location")), (302, Some("/vd/index.html")), "{path}");
    }
    is(&scene.ask("", "GET", "/vd/index.html", ""), "text/html", "<p>old");
    is(&scene.ask("", "GET", "/vd/ui/dashboard", ""), "text/html", "<p>new");
}

#[test]
fn the_two_can_be_had_one_by_one() {
    let (both, dir) = scene("");
    drop(both);
    let ui_new = Some(dir.path().join("new"));
    let scene = Scene::with(VirtDancer { ui_new, ..VirtDancer::default() }, "");
    scene.ask("", "GET", "/", "").told(404, "Not Found", "/");
    scene.ask("", "GET", "/index.html", "").told(404, "Not Found", "/index.html");
    is(&scene.ask("", "GET", "/ui/dashboard", ""), "text/html", "<p>new");
}
