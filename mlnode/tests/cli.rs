//! The program's commands.

use std::{path::Path, process::Command};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo-model");

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-mlnode"));
    // Whoever runs the tests may run a node too.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STARLING_MLNODE__")) {
        command.env_remove(name);
    }
    command
}

fn check_config(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlnode.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("token"), "0123456789abcdef").unwrap();
    let output = program()
        .arg("--config")
        .arg(&path)
        .arg("--check-config")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[test]
fn configurations_are_checked() {
    let good = format!("token_file = \"token\"\n[model]\nname = \"demo\"\nfolder = \"{DEMO}\"\n");
    assert!(check_config(&good, &[]).unwrap().contains("is usable"));
    let unknown = check_config("token_file = \"token\"\ntreads = 1", &[]).unwrap_err();
    assert!(unknown.contains("treads"), "{unknown}");
    let secret = check_config("token = \"0123456789abcdef\"", &[]).unwrap_err();
    assert!(
        secret.contains("must not stand in the configuration file") && !secret.contains("0123456789"),
        "{secret}"
    );
}

#[test]
fn the_environment_overrides_fields() {
    let good = "token_file = \"token\"";
    let bad = check_config(good, &[("STARLING_MLNODE__LIMITS__REQUESTS_MAX", "0")]).unwrap_err();
    assert!(bad.contains("limits.requests_max"), "{bad}");
    let unknown = check_config(good, &[("STARLING_MLNODE__LIMITS__NOTHING", "0")]).unwrap_err();
    assert!(unknown.contains("nothing"), "{unknown}");
    // A token of digits is still a text.
    check_config("", &[("STARLING_MLNODE__TOKEN", "1234567890123456")]).unwrap();
    assert!(check_config("", &[("STARLING_MLNODE__TOKEN", "123")]).unwrap_err().contains("shorter"));
}

#[test]
fn digests_are_printed_as_json() {
    let output = program().arg("digest").arg(DEMO).output().unwrap();
    assert!(output.status.success());
    let printed: starling_mlnode_api::ModelDigest = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, starling_mlnode::digest::folder_digest(Path::new(DEMO)).unwrap());
    assert!(!program().arg("digest").arg("/nowhere").output().unwrap().status.success());
}

/// Findings as a map from name to value.
fn doctor(arguments: &[&str]) -> (bool, serde_json::Map<String, serde_json::Value>, String) {
    let output = program().args(["doctor", "--json"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["name"].as_str().unwrap().to_owned(), line["value"].take())
    });
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{errors}");
    (output.status.success(), findings.collect(), errors)
}

#[test]
fn the_doctor_says_what_can_be_served() {
    let (healthy, findings, _) = doctor(&[DEMO, "--threads", "1"]);
    assert!(healthy, "{findings:?}");
    for measured in ["memory_total", "memory_free", "read_bandwidth", "product_rate", "prefill_bound"] {
        assert!(findings[measured].as_f64().unwrap() > 0.0, "{measured}");
    }
    assert_eq!(findings["threads"], 1);
    let digest = starling_mlnode::digest::folder_digest(Path::new(DEMO)).unwrap();
    assert_eq!(findings["weights_digest"], format!("{:?}", digest.weights_digest));
    // 6 layers, keys and values of 2 heads of 32 numbers in f32.
    assert_eq!(findings["kv_per_token"], 6 * 2 * 2 * 32 * 4);
    let fit = findings["context_that_fits"].as_f64().unwrap();
    assert!(fit * 3072.0 < findings["memory_total"].as_f64().unwrap() * 1048576.0, "{fit}");
    // Without a model only the machine is examined; a person gets a table.
    let output = program().args(["doctor", "--threads", "1"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && table.contains("GB/s") && !table.contains("weights_digest"),
        "{table}"
    );
}

#[test]
fn the_doctor_says_why_a_model_cannot_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (healthy, findings, error) = doctor(&[path, "--threads", "1"]);
    assert!(!healthy && findings.contains_key("read_bandwidth"));
    assert!(error.contains("cannot serve the model") && error.contains("model.safetensors"), "{error}");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(Path::new(DEMO).join(file), folder.path().join(file)).unwrap();
    }
    let weights = std::fs::read(Path::new(DEMO).join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let (healthy, _, error) = doctor(&[path, "--threads", "1"]);
    assert!(!healthy && error.contains("model.safetensors"), "{error}");
}

#[test]
fn the_benchmark_prints_json_lines() {
    // A peer that needs a second for everything.
    let peer = "slow=tests/slow_peer.sh";
    for engine in [&[][..], &["--libtorch"]] {
        let output = program()
            .args(["bench", DEMO, "--prompt", "20", "--tokens", "9", "--batch", "2", "--rounds", "1"])
            .args(["--peer", peer])
            .args(engine)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let value = |name: &str| {
            let line = lines.iter().find(|line| line["name"] == name);
            line.unwrap_or_else(|| panic!("{name} is missing"))["value"].as_f64().unwrap()
        };
        assert!(lines.iter().all(|line| line["value"].as_f64().unwrap() > 0.0), "{lines:?}");
        assert!(value("transcript_of_decode_batch_1") < 1.0);
        assert_eq!((value("slow_prefill"), value("slow_decode_batch_n")), (20.0, 16.0));
        let ratio = value("prefill_of_slow") * 20.0 / value("prefill");
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}");
    }
}
