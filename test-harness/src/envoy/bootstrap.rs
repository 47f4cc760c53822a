//! A typed description of what Envoy shall run, rendered as its JSON bootstrap.
//!
//! Everything listens on loopback, on ports the kernel chooses. Each part takes a `raw` object that is merged over what is
//! rendered, for settings that need no name here.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::stats_tags::stats_tags;

/// A set of upstream endpoints.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) name: String,
    endpoints: Vec<SocketAddr>,
    http2: bool,
    raw: Value,
}

/// Which requests go to which cluster.
#[derive(Debug, Clone)]
pub struct Route {
    matching: Value,
    name: Option<String>,
    action: Value,
    raw: Value,
}

/// A listener with its HTTP filters.
#[derive(Debug, Clone)]
pub struct Listener {
    pub(super) name: String,
    pub(super) filters: Vec<super::HttpFilter>,
    routes: Vec<Route>,
    upgrades: Vec<String>,
    access_log_format: Option<String>,
    balanced: bool,
    raw: Value,
}

/// Lays `over` onto `base`: objects are merged, anything else is replaced.
pub(super) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What a part without extra settings carries.
fn nothing() -> Value {
    Value::Object(Map::new())
}

// === impl Cluster ===

impl Cluster {
    /// A cluster with one endpoint that speaks HTTP/1.1.
    pub fn new(name: impl Into<String>, endpoint: SocketAddr) -> Self {
        Self { name: name.into(), endpoints: vec![endpoint], http2: false, raw: nothing() }
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: SocketAddr) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Speaks HTTP/2 with prior knowledge to the endpoints.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Fields of `envoy.config.cluster.v3.Cluster`, laid over what is rendered.
    #[must_use]
    pub fn raw(mut self, fields: Value) -> Self {
        merge(&mut self.raw, &fields);
        self
    }

    fn render(&self) -> Value {
        let endpoints: Vec<_> =
            self.endpoints.iter().map(|at| json!({"endpoint": {"address": socket_address(*at)}})).collect();
        // Envoy's own circuit breakers reject beyond 1024 by default: out of the way, unless a test asks for them.
        let many = 1_000_000;
        let thresholds = json!([{
            "max_connections": many, "max_pending_requests": many, "max_requests": many, "max_retries": many
        }]);
        let mut cluster = json!({
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": self.name, "endpoints": [{"lb_endpoints": endpoints}]},
            "circuit_breakers": {"thresholds": thresholds}
        });
        if self.http2 {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}
                }
            });
        }
        merge(&mut cluster, &self.raw);
        cluster
    }
}

// === impl Route ===

impl Route {
    /// Requests whose path starts with `prefix` go to `cluster`, with Envoy's default timeout of 15 s.
    pub fn prefix(prefix: &str, cluster: impl Into<String>) -> Self {
        Self::new(prefix, json!({"route": {"cluster": cluster.into()}}))
    }

    /// Envoy itself answers requests whose path starts with `prefix`.
    pub fn respond(prefix: &str, status: u16) -> Self {
        Self::new(prefix, json!({"direct_response": {"status": status}}))
    }

    fn new(prefix: &str, action: Value) -> Self {
        Self { matching: json!({"prefix": prefix}), name: None, action, raw: nothing() }
    }

    /// The route's name, as `xds.route_name` has it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The whole request's timeout; `"0s"` is none.
    #[must_use]
    pub fn timeout(self, timeout: &str) -> Self {
        self.raw(json!({"route": {"timeout": timeout}}))
    }

    /// Retries on these conditions (`"5xx,reset"`), at most `retries` times.
    #[must_use]
    pub fn retry(self, on: &str, retries: u32) -> Self {
        self.raw(json!({"route": {"retry_policy": {"retry_on": on, "num_retries": retries}}}))
    }

    /// Fields of `envoy.config.route.v3.Route`, laid over what is rendered.
    #[must_use]
    pub fn raw(mut self, fields: Value) -> Self {
        merge(&mut self.raw, &fields);
        self
    }

    fn render(&self) -> Value {
        let mut route = json!({"match": self.matching});
        merge(&mut route, &self.action);
        if let Some(name) = &self.name {
            route["name"] = json!(name);
        }
        merge(&mut route, &self.raw);
        route
    }
}

// === impl Listener ===

impl Listener {
    /// A listener without filters whose every request goes to the first cluster; without any cluster Envoy itself answers 200.
    /// It speaks HTTP/1.1, and HTTP/2 with prior knowledge.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            filters: Vec::new(),
            routes: Vec::new(),
            upgrades: Vec::new(),
            access_log_format: None,
            balanced: false,
            raw: nothing(),
        }
    }

    /// Appends an HTTP filter; the router comes after the last.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<super::HttpFilter>) -> Self {
        self.filters.push(filter.into());
        self
    }

    /// Appends a route; the first that matches is taken.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Allows an upgrade such as `websocket`.
    #[must_use]
    pub fn upgrade(mut self, kind: impl Into<String>) -> Self {
        self.upgrades.push(kind.into());
        self
    }

    /// Writes one line per request, in Envoy's access log format, to a file; see [`super::Envoy::wait_for_access_log`].
    #[must_use]
    pub fn access_log(mut self, format: impl Into<String>) -> Self {
        self.access_log_format = Some(format.into());
        self
    }

    /// Each connection goes to the worker that has the fewest. Otherwise the kernel chooses, and a worker may get none.
    #[must_use]
    pub fn balanced(mut self) -> Self {
        self.balanced = true;
        self
    }

    /// Fields of the `HttpConnectionManager`, laid over what is rendered.
    #[must_use]
    pub fn raw(mut self, fields: Value) -> Self {
        merge(&mut self.raw, &fields);
        self
    }

    /// The file this listener's access log goes to, below `folder`.
    pub(super) fn access_log_file(name: &str, folder: &Path) -> std::path::PathBuf {
        folder.join(format!("access-{name}.log"))
    }

    pub(super) fn render(&self, first_cluster: Option<&str>, folder: &Path) -> Value {
        let mut filters: Vec<_> = self.filters.iter().map(super::HttpFilter::render).collect();
        filters.push(json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
        }));
        let mut routes: Vec<_> = self.routes.iter().map(Route::render).collect();
        if routes.is_empty() {
            let everything = match first_cluster {
                Some(cluster) => Route::prefix("/", cluster),
                None => Route::respond("/", 200),
            };
            routes.push(everything.render());
        }
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": self.name,
            "codec_type": "AUTO",
            "http_protocol_options": {"enable_trailers": true},
            "http_filters": filters,
            "upgrade_configs": self.upgrades.iter().map(|kind| json!({"upgrade_type": kind})).collect::<Vec<_>>(),
            "route_config": {
                "name": self.name,
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
            }
        });
        if let Some(format) = &self.access_log_format {
            manager["access_log"] = json!([{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": Self::access_log_file(&self.name, folder),
                    "log_format": {"text_format_source": {"inline_string": format!("{format}\n")}}
                }
            }]);
        }
        merge(&mut manager, &self.raw);
        let mut listener = json!({
            "name": self.name,
            "stat_prefix": self.name,
            "address": socket_address(SocketAddr::from(([127, 0, 0, 1], 0))),
            "filter_chains": [{
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
            }]
        });
        if self.balanced {
            listener["connection_balance_config"] = json!({"exact_balance": {}});
        }
        listener
    }
}

fn socket_address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// Where the listeners come from.
pub(super) enum Source<'a> {
    /// They are part of the bootstrap.
    Static(&'a [Listener]),
    /// Envoy watches this file for them.
    File(&'a Path),
}

/// The whole bootstrap. Statistics are merged when they are asked for, so that a test sees them at once.
pub(super) fn bootstrap(clusters: &[Cluster], source: Source, folder: &Path, raw: &Value) -> Value {
    let first = clusters.first().map(|cluster| cluster.name.as_str());
    let mut bootstrap = json!({
        "node": {"id": "tidegate-harness", "cluster": "tidegate-harness"},
        "admin": {"address": socket_address(SocketAddr::from(([127, 0, 0, 1], 0)))},
        "stats_config": {"stats_tags": stats_tags()},
        "stats_flush_on_admin": true,
        "static_resources": {"clusters": clusters.iter().map(Cluster::render).collect::<Vec<_>>()}
    });
    match source {
        Source::Static(listeners) => {
            bootstrap["static_resources"]["listeners"] = listeners.iter().map(|l| l.render(first, folder)).collect();
        }
        Source::File(path) => {
            bootstrap["dynamic_resources"] = json!({
                "lds_config": {
                    "path_config_source": {"path": path, "watched_directory": {"path": path.parent()}},
                    "resource_api_version": "V3"
                }
            });
        }
    }
    merge(&mut bootstrap, raw);
    bootstrap
}

/// The file Envoy watches when listeners are delivered dynamically.
pub(super) fn discovery(listeners: &[Listener], first_cluster: Option<&str>, folder: &Path, version: u32) -> Value {
    let resources: Vec<_> = listeners
        .iter()
        .map(|listener| {
            let mut rendered = listener.render(first_cluster, folder);
            rendered["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
            rendered
        })
        .collect();
    json!({"version_info": version.to_string(), "resources": resources})
}
