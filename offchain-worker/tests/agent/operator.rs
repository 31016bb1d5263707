//! The operator's HTTP: ML nodes that come and go, API keys.

use crate::{
    network::{eventually, Network},
    node::{profile, FakeNode, MODEL},
};
use reqwest::Method;
use serde_json::{json, Value};
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_without_the_token() {
    let network = Network::start(1).await;
    let url = format!("http://{}/admin/v1/nodes", network.hosts[0].agent.admin());
    for request in [network.http.get(&url), network.http.get(&url).bearer_auth("wrong")] {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    // The gateway's port knows no such route.
    assert_eq!(network.http.get(network.url(0, "/admin/v1/nodes")).send().await.unwrap().status(), 404);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_without_losing_a_request() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    let old = &network.hosts[1].node;
    old.hold();
    let body =
        json!({ "model": MODEL, "max_tokens": 6, "messages": [{ "role": "user", "content": "hello" }] });
    let request = network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&body);
    let running = tokio::spawn(async move { request.send().await.unwrap().status() });
    eventually("the request runs", || async {
        (old.controls.begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;

    let new = FakeNode::start().await;
    let added =
        network.admin(1, Method::POST, "/admin/v1/nodes").json(&new.spec("n1", 2)).send().await.unwrap();
    assert_eq!(added.status(), 201);
    let removed = network.admin(1, Method::DELETE, "/admin/v1/nodes/n0").send().await.unwrap();
    assert_eq!(removed.status(), 204);
    eventually("the new node is healthy", || async {
        (!network.hosts[1].agent.fleet().serving(&profile()).is_empty()).then_some(())
    })
    .await;
    let second = network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&body);
    assert_eq!(second.send().await.unwrap().status(), 200);
    assert_eq!(new.controls.begun.load(Ordering::SeqCst), 1);
    // What ran on the removed node ends in peace.
    old.controls.steps.add_permits(100);
    assert_eq!(running.await.unwrap(), 200);

    let list: Value =
        network.admin(1, Method::GET, "/admin/v1/nodes").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(list["nodes"][0]["id"], "n1");
    assert_eq!(list["nodes"][0]["max_concurrent"], 2);
    assert_eq!(list["nodes"][0]["health"]["state"], "healthy");
    assert_eq!(list["nodes"][0]["fits_profile"], true);
    assert_eq!(list["nodes"][0].get("misfit"), None);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_other_weights_gets_no_work() {
    let network = Network::start(2).await;
    let key = network.api_key(0, None).await;
    network.hosts[1].node.controls.other_weights.store(true, Ordering::SeqCst);
    eventually("the fleet sees it", || async {
        network.hosts[1].agent.fleet().serving(&profile()).is_empty().then_some(())
    })
    .await;
    let body =
        json!({ "model": MODEL, "max_tokens": 2, "messages": [{ "role": "user", "content": "hello" }] });
    let request = network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&body);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 503);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_registrations_are_refused() {
    let network = Network::start(1).await;
    let check = |body: Value, status: u16| {
        let request = network.admin(0, Method::POST, "/admin/v1/nodes").json(&body);
        async move { assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{body}") }
    };
    let spec = network.hosts[0].node.spec("x", 1);
    let with = |field: &str, value: Value| {
        let mut spec = spec.clone();
        spec[field] = value;
        spec
    };
    check(with("max_concurrent", json!(0)), 400).await;
    check(with("host", json!("a b")), 400).await;
    check(with("host", json!("user@evil/x")), 400).await;
    check(with("models", json!({})), 400).await;
    check(with("surprise", json!(1)), 400).await;
    check(json!([]), 400).await;
    let missing = network.admin(0, Method::DELETE, "/admin/v1/nodes/nobody").send().await.unwrap();
    assert_eq!(missing.status(), 404);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_shown_once_and_revoked_at_once() {
    let network = Network::start(2).await;
    let key = network.api_key(0, Some("1000")).await;
    let list = network.admin(0, Method::GET, "/admin/v1/keys").send().await.unwrap().text().await.unwrap();
    assert!(!list.contains(&key));
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["keys"][0]["limit"], "1000");
    let body =
        json!({ "model": MODEL, "max_tokens": 2, "messages": [{ "role": "user", "content": "hello" }] });
    let send =
        || network.http.post(network.url(0, "/v1/chat/completions")).bearer_auth(&key).json(&body).send();
    let answer: Value = send().await.unwrap().json().await.unwrap();
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    let id = list["keys"][0]["id"].as_str().unwrap();
    eventually("the key has spent what the answer cost", || async {
        let list: Value =
            network.admin(0, Method::GET, "/admin/v1/keys").send().await.unwrap().json().await.unwrap();
        let spent = list["keys"][0]["spent"].as_str()?.parse::<u64>().unwrap();
        (spent == prompt + 20).then_some(())
    })
    .await;
    let revoked = network.admin(0, Method::DELETE, &format!("/admin/v1/keys/{id}")).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    assert_eq!(send().await.unwrap().status(), 401);
    // No file of the gateway holds the key.
    for file in std::fs::read_dir(&network.hosts[0].data_dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()));
    }
    network.stop().await;
}

#[test]
fn the_program_checks_a_configuration_and_prints_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starling-host.toml");
    let account = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let text = format!(
        "[host]\naccount = \"{account}\"\ndata_dir = \"data\"\n[keys]\nworker_file = \"worker.key\"\n"
    );
    std::fs::write(&path, &text).unwrap();
    std::fs::write(folder.path().join("worker.key"), "//Alice//worker\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_starling-host"));
        let output = command.arg("--config").arg(&path).args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (valid, said, _) = run(&["--check-config"]);
    assert!(valid && said.contains("is valid"), "{said}");
    let (_, first, _) = run(&["peer-id"]);
    let (_, second, _) = run(&["peer-id"]);
    assert!(first.starts_with("12D3") && first == second, "{first}");
    assert!(run(&["delegate"]).1.starts_with('5'));
    std::fs::write(&path, format!("{text}[gateway]\nlisten_on = 1\n")).unwrap();
    let (valid, _, error) = run(&["--check-config"]);
    assert!(!valid && error.contains("listen_on"), "{error}");
}
