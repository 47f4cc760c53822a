//! `envoy/envoy.yaml` as users get it, with other addresses, another policy, or without Tidegate.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::envoy::{Builder, Envoy, locate};

const ADMIN: &str = "/admin/address/socket_address/port_value";
const LISTENER: &str = "/static_resources/listeners/0/address/socket_address/port_value";
const UPSTREAM: &str =
    "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// The configuration, as it will be given to Envoy.
#[derive(Debug, Clone)]
pub struct EnvoyYaml {
    bootstrap: Value,
    module: PathBuf,
}

impl EnvoyYaml {
    /// The file, with the module where it was found.
    ///
    /// # Errors
    /// The module has not been built, or the file is not as expected.
    pub fn read() -> Result<Self> {
        let module = locate::tidegate_wasm()?;
        let path = locate::repository().join("envoy/envoy.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, module).with_context(|| format!("cannot use {}", path.display()))
    }

    fn parse(text: &str, module: PathBuf) -> Result<Self> {
        let mut yaml = Self { bootstrap: yaml_serde::from_str(text)?, module };
        let file = json!(yaml.module);
        *yaml.tidegate("/vm_config/code/local/filename")? = file;
        Ok(yaml)
    }

    /// The port of the listener.
    ///
    /// # Errors
    /// The file has none.
    pub fn listener(&mut self) -> Result<&mut Value> {
        self.at(LISTENER)
    }

    /// The port of the admin interface.
    ///
    /// # Errors
    /// The file has none.
    pub fn admin(&mut self) -> Result<&mut Value> {
        self.at(ADMIN)
    }

    /// The address and the port of the upstream.
    ///
    /// # Errors
    /// The file has none.
    pub fn upstream(&mut self) -> Result<&mut Value> {
        self.at(UPSTREAM)
    }

    /// Tidegate's own configuration.
    ///
    /// # Errors
    /// The file has none.
    pub fn policy(&mut self) -> Result<&mut Value> {
        self.tidegate("/configuration/value")
    }

    /// Sends requests there.
    ///
    /// # Errors
    /// The file has no upstream.
    pub fn forward_to(&mut self, upstream: SocketAddr) -> Result<()> {
        *self.upstream()? = json!({"address": upstream.ip().to_string(), "port_value": upstream.port()});
        Ok(())
    }

    /// Takes Tidegate out of the filter chain.
    ///
    /// # Errors
    /// The file has no filter chain.
    pub fn remove_tidegate(&mut self) -> Result<()> {
        let filters = self.at(FILTERS)?.as_array_mut().context("http_filters is not a list")?;
        filters.retain(|filter| filter["name"] != "tidegate");
        Ok(())
    }

    /// An Envoy that runs it.
    pub fn builder(&self) -> Builder {
        Envoy::builder().raw(&self.bootstrap).reads(self.module.clone())
    }

    fn tidegate(&mut self, pointer: &str) -> Result<&mut Value> {
        let filters = self.at(FILTERS)?.as_array_mut().context("http_filters is not a list")?;
        let filter = filters.iter_mut().find(|filter| filter["name"] == "tidegate").context("no filter tidegate")?;
        let config = filter.pointer_mut("/typed_config/config").context("no config in the filter tidegate")?;
        config.pointer_mut(pointer).with_context(|| format!("no {pointer} in the filter tidegate"))
    }

    fn at(&mut self, pointer: &str) -> Result<&mut Value> {
        self.bootstrap.pointer_mut(pointer).with_context(|| format!("there is no {pointer}"))
    }
}

/// This loopback port if nobody listens there, or else 0: whichever the kernel chooses.
pub fn free_or_any(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> EnvoyYaml {
        let text = std::fs::read_to_string(locate::repository().join("envoy/envoy.yaml")).unwrap();
        EnvoyYaml::parse(&text, "/module.wasm".into()).unwrap()
    }

    #[test]
    fn the_shipped_file_has_the_places_that_are_changed() {
        let mut yaml = shipped();
        assert_eq!((yaml.listener().unwrap().clone(), yaml.admin().unwrap().clone()), (json!(10000), json!(9901)));
        assert_eq!(yaml.policy().unwrap()["policies"][0]["name"], "default");
        yaml.forward_to(([127, 0, 0, 1], 7).into()).unwrap();
        assert_eq!(yaml.upstream().unwrap()["port_value"], 7);
        assert!(yaml.bootstrap.to_string().contains("\"/module.wasm\""));
    }

    #[test]
    fn without_tidegate_only_the_router_is_left() {
        let mut yaml = shipped();
        yaml.remove_tidegate().unwrap();
        let filters = yaml.at(FILTERS).unwrap().as_array().unwrap();
        assert_eq!(filters.len(), 1);
        assert_eq!(filters[0]["name"], "envoy.filters.http.router");
    }

    #[test]
    fn a_taken_port_is_not_asked_for() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_or_any(port), 0);
    }
}
