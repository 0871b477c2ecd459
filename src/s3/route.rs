//! Which requests go through the proxy that the environment names: none to this machine, none to the metadata of the
//! container or instance it runs in.
//!
//! No proxy reaches these, and tokens of the machine would leave it on the way. Everything else follows `HTTP_PROXY`,
//! `HTTPS_PROXY` and `NO_PROXY`.

use std::net::IpAddr;

use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// Variables that name where container and instance metadata are served.
const METADATA: [&str; 2] = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// The HTTP client of everything that is reached through the SDK.
pub(super) fn client() -> SharedHttpClient {
    let environment = METADATA.iter().filter_map(|name| std::env::var(name).ok());
    let metadata = environment
        .filter_map(|url| url.parse::<http::Uri>().ok()?.host().map(bare))
        .collect();
    SharedHttpClient::new(Clients {
        proxied: proxied(),
        direct: Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https(),
        plain: Builder::new().build_http(),
        metadata,
    })
}

/// An HTTP client for what this process itself serves without TLS: whatever proxy the environment names is not asked for it.
pub fn direct(endpoint_url: &str) -> Option<SharedHttpClient> {
    let plain = endpoint_url.starts_with("http://");
    plain.then(|| Builder::new().build_http())
}

/// As the SDK makes its own.
fn proxied() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut builder = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.set_proxy_config(Some(aws_smithy_http_client::proxy::ProxyConfig::from_env()));
        builder.build()
    })
}

#[derive(Clone, Debug)]
struct Clients {
    proxied: SharedHttpClient,
    direct: SharedHttpClient,
    plain: SharedHttpClient,
    /// Hosts of metadata that the environment names.
    metadata: Vec<String>,
}

impl Clients {
    fn of(&self, uri: &str) -> &SharedHttpClient {
        let uri = uri.parse::<http::Uri>().ok();
        let host = uri.as_ref().and_then(http::Uri::host).map(bare);
        match host {
            Some(host) if is_here(&host) || self.metadata.contains(&host) => {
                let plain = uri.is_some_and(|uri| uri.scheme_str() == Some("http"));
                if plain { &self.plain } else { &self.direct }
            }
            _ => &self.proxied,
        }
    }
}

impl HttpClient for Clients {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Choice {
            clients: self.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

/// Chooses when the request is there; the clients keep their connections.
#[derive(Debug)]
struct Choice {
    clients: Clients,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Choice {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clients.of(request.uri());
        client
            .http_connector(&self.settings, &self.components)
            .call(request)
    }
}

/// A host without the brackets of an address, in lower case.
fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

/// Whether a host is this machine, or the metadata service that its links lead to.
fn is_here(host: &str) -> bool {
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            // fd00:ec2::/32 is that of EC2 and EKS.
            let metadata = address.segments()[..2] == [0xfd00, 0xec2];
            address.is_loopback() || address.is_unicast_link_local() || metadata
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_metadata_are_asked_without_a_proxy() {
        for here in [
            "localhost",
            "plant.localhost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "169.254.169.254",
            "169.254.170.2",
            "fd00:ec2::254",
            "fd00:ec2::23",
        ] {
            assert!(is_here(here), "{here}");
        }
        for away in [
            "store.example",
            "localhost.example",
            "10.0.0.1",
            "192.168.1.7",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is_here(away), "{away}");
        }
        assert_eq!(bare("[FD00:ec2::254]"), "fd00:ec2::254");
    }
}
