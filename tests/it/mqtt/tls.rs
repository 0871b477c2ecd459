//! TLS to a mosquitto with an authority of the test's own, and certificates that are renewed under a running input.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lookoutd::input::mqtt::Config;

use super::{Mosquitto, Site, json, now_millis, runtime, until};
use crate::rig::directory;
use crate::skipped;

fn openssl(directory: &Path, arguments: &str) {
    let made = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success(), "openssl {arguments}");
}

/// An authority, and a certificate of it for each of `names`: `NAME.pem` and `NAME.key`.
fn authority(directory: &Path, names: &[&str]) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(
        directory.join("machine"),
        "subjectAltName = DNS:localhost, IP:127.0.0.1\nbasicConstraints = CA:FALSE\n",
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=test-authority"),
    );
    for name in names {
        openssl(
            directory,
            &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile machine -out {name}.pem"
            ),
        );
    }
}

/// J2
#[test]
fn j2_renewed_certificates_are_used_at_the_next_connect_and_a_stranger_is_not_trusted() {
    if Command::new("openssl").arg("version").output().is_err() {
        skipped::say("openssl is not installed, which makes the certificates of this test");
        return;
    }
    let all = directory();
    let (first, second, in_use) = (
        all.path().join("first"),
        all.path().join("second"),
        all.path().join("use"),
    );
    for of in [&first, &second] {
        authority(of, &["broker", "gateway"]);
    }
    std::fs::create_dir_all(&in_use).unwrap();
    let put = |from: &Path, names: &[&str]| {
        for name in names {
            std::fs::copy(from.join(name), in_use.join(name)).unwrap();
        }
    };
    let brokers = ["ca.pem", "broker.pem", "broker.key"];
    put(&first, &brokers);
    let path = |name: &str| -> PathBuf { in_use.join(name) };
    let lines = [
        format!("cafile {}", path("ca.pem").display()),
        format!("certfile {}", path("broker.pem").display()),
        format!("keyfile {}", path("broker.key").display()),
        "require_certificate true".to_owned(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let Some(mut mosquitto) = Mosquitto::start(&lines) else {
        return;
    };
    // Our own files lie elsewhere, as they do.
    let own = all.path().join("own");
    std::fs::create_dir_all(&own).unwrap();
    let renew = |from: &Path| {
        for name in ["ca.pem", "gateway.pem", "gateway.key"] {
            std::fs::copy(from.join(name), own.join(name)).unwrap();
        }
    };
    renew(&first);
    let file = |name: &str| own.join(name).display().to_string();
    let config = Config {
        tls_ca: file("ca.pem"),
        tls_cert: file("gateway.pem"),
        tls_key: file("gateway.key"),
        ..json(&mosquitto.url().replace("mqtt://", "mqtts://"))
    };
    runtime().block_on(async {
        let site = Site::new(&[("one", "a")]);
        let input = site.start(&config);
        input.connected().await;
        mosquitto.settle().await;
        mosquitto.publish_through(&own, "a", &super::document(now_millis(), 1.0));
        until("it comes", || site.values("one") == [1.0]).await;
        // Another authority: the broker is renewed first, and not trusted until we are.
        put(&second, &brokers);
        mosquitto.restart();
        until("it is said", || {
            input.figures().error.is_some_and(|it| it.contains("TLS"))
        })
        .await;
        renew(&second);
        input.connected().await;
        input.end().await;
    });
}
