//! The HTTP filters a listener can have: Tidegate, or any of Envoy's own as JSON.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

/// One entry of a listener's filter chain.
#[derive(Debug, Clone)]
pub enum HttpFilter {
    /// A wasm module.
    Wasm(Box<Tidegate>),
    /// A filter in Envoy's own configuration: `{"name", "typed_config": {"@type", ...}}`.
    Raw(Value),
}

/// How the plugin's configuration is written in Envoy's.
#[derive(Debug, Clone)]
enum Configuration {
    String(String),
    Struct(Value),
}

/// The Tidegate filter.
#[derive(Debug, Clone)]
pub struct Tidegate {
    name: String,
    vm_id: String,
    configuration: Option<Configuration>,
    failure_policy: Option<String>,
    stops_headers_only: bool,
    pub(super) module: PathBuf,
}

// === impl Tidegate ===

impl Tidegate {
    /// Tidegate with this configuration, handed over as a `StringValue`.
    ///
    /// # Errors
    /// The module has not been built; see [`super::locate::tidegate_wasm`].
    pub fn new(configuration: &Value) -> Result<Self> {
        Ok(Self::with_module(super::locate::tidegate_wasm()?).text(configuration.to_string()))
    }

    /// Another module in Tidegate's place, without a configuration.
    pub fn with_module(module: PathBuf) -> Self {
        Self {
            name: "tidegate".into(),
            vm_id: "tidegate".into(),
            configuration: None,
            failure_policy: Some("FAIL_RELOAD".into()),
            stops_headers_only: false,
            module,
        }
    }

    /// The configuration as text, which need not be JSON.
    #[must_use]
    pub fn text(mut self, configuration: impl Into<String>) -> Self {
        self.configuration = Some(Configuration::String(configuration.into()));
        self
    }

    /// The configuration as a `google.protobuf.Struct`, as plain YAML gives it.
    #[must_use]
    pub fn structure(mut self, configuration: Value) -> Self {
        self.configuration = Some(Configuration::Struct(configuration));
        self
    }

    /// The plugin's name in Envoy.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Filters with the same id, module and VM configuration share one VM per worker, and shared data.
    #[must_use]
    pub fn vm_id(mut self, vm_id: impl Into<String>) -> Self {
        self.vm_id = vm_id.into();
        self
    }

    /// `FAIL_RELOAD` unless set, or `FAIL_OPEN`, `FAIL_CLOSED`.
    #[must_use]
    pub fn failure_policy(mut self, policy: impl Into<String>) -> Self {
        self.failure_policy = Some(policy.into());
        self
    }

    /// Has Envoy go on handing over the bodies of requests that the filter holds (`allow_on_headers_stop_iteration`).
    #[must_use]
    pub fn stops_headers_only(mut self) -> Self {
        self.stops_headers_only = true;
        self
    }

    fn render(&self) -> Value {
        let mut config = json!({
            "name": self.name,
            "vm_config": {
                "vm_id": self.vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": self.module}}
            }
        });
        if let Some(policy) = &self.failure_policy {
            config["failure_policy"] = json!(policy);
        }
        if self.stops_headers_only {
            config["allow_on_headers_stop_iteration"] = json!(true);
        }
        match &self.configuration {
            None => {}
            Some(Configuration::String(text)) => {
                config["configuration"] =
                    json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text});
            }
            Some(Configuration::Struct(value)) => {
                config["configuration"] =
                    json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": value});
            }
        }
        json!({
            "name": "envoy.filters.http.wasm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": config
            }
        })
    }
}

// === impl HttpFilter ===

impl HttpFilter {
    /// Envoy's own token bucket: `tokens` at most, refilled by as many every `interval`, each worker's listener as one.
    pub fn local_ratelimit(tokens: u32, interval: &str) -> Self {
        Self::local_bucket(tokens, tokens, interval)
    }

    /// The same, refilled by `fill` tokens at a time.
    pub fn local_bucket(tokens: u32, fill: u32, interval: &str) -> Self {
        Self::local(&json!({
            "token_bucket": {"max_tokens": tokens, "tokens_per_fill": fill, "fill_interval": interval}
        }))
    }

    /// Envoy's own token buckets, one for each value of a header, of which the `most` used last are kept.
    pub fn local_buckets_by_header(header: &str, most: u32, tokens: u32, interval: &str) -> Self {
        let bucket = json!({"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval});
        let action = json!({"request_headers": {"header_name": header, "descriptor_key": "key"}});
        Self::local(&json!({
            "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
            "rate_limits": [{"actions": [action]}],
            "descriptors": [{"entries": [{"key": "key"}], "token_bucket": bucket}],
            "max_dynamic_descriptors": most
        }))
    }

    /// The same beside a bucket of `all` tokens, refilled by one at a time, that every request takes from too: first, since
    /// Envoy asks the bucket with the lowest rate first.
    pub fn local_buckets_by_header_and_one_for_all(header: &str, tokens: u32, all: u32, interval: &str) -> Self {
        let bucket =
            |tokens: u32, fill: u32| json!({"max_tokens": tokens, "tokens_per_fill": fill, "fill_interval": interval});
        let action = json!({"request_headers": {"header_name": header, "descriptor_key": "key"}});
        Self::local(&json!({
            "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
            "rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "all"}}]}, {"actions": [action]}],
            "descriptors": [
                {"entries": [{"key": "generic_key", "value": "all"}], "token_bucket": bucket(all, 1)},
                {"entries": [{"key": "key"}], "token_bucket": bucket(tokens, tokens)}
            ]
        }))
    }

    /// The same as [`HttpFilter::local_bucket`], of which each request takes `cost` tokens.
    pub fn local_bucket_at_cost(tokens: u32, fill: u32, interval: &str, cost: u32) -> Self {
        let bucket = json!({"max_tokens": tokens, "tokens_per_fill": fill, "fill_interval": interval});
        let action = json!({"generic_key": {"descriptor_value": "all"}});
        Self::local(&json!({
            "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
            "rate_limits": [{"actions": [action], "hits_addend": {"number": cost}}],
            "descriptors": [{"entries": [{"key": "generic_key", "value": "all"}], "token_bucket": bucket}]
        }))
    }

    /// This one of Envoy's own rate limits, counting under `native_shadow` what it would reject and rejecting nothing.
    ///
    /// # Panics
    /// It is another filter.
    #[must_use]
    pub fn not_enforced(mut self) -> Self {
        let Self::Raw(filter) = &mut self else { panic!("not one of Envoy's own rate limits: {self:?}") };
        let never = json!({"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": "never"});
        super::bootstrap::merge(
            filter,
            &json!({"typed_config": {"stat_prefix": "native_shadow", "filter_enforced": never}}),
        );
        self
    }

    /// Envoy's own concurrency limit, with the settings of its documentation.
    pub fn adaptive_concurrency() -> Self {
        Self::Raw(json!({
            "name": "envoy.filters.http.adaptive_concurrency",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
                "gradient_controller_config": {
                    "sample_aggregate_percentile": {"value": 90},
                    "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                    "min_rtt_calc_params": {"jitter": {"value": 10}, "interval": "60s", "request_count": 50}
                },
                "enabled": {"default_value": true, "runtime_key": "adaptive_concurrency.enabled"}
            }
        }))
    }

    fn local(settings: &Value) -> Self {
        let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}, "runtime_key": "always"});
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "native",
            "filter_enabled": always,
            "filter_enforced": always
        });
        super::bootstrap::merge(&mut config, settings);
        Self::Raw(json!({"name": "envoy.filters.http.local_ratelimit", "typed_config": config}))
    }

    pub(super) fn render(&self) -> Value {
        match self {
            Self::Wasm(tidegate) => tidegate.render(),
            Self::Raw(value) => value.clone(),
        }
    }
}

impl From<Tidegate> for HttpFilter {
    fn from(tidegate: Tidegate) -> Self {
        Self::Wasm(Box::new(tidegate))
    }
}

impl From<Value> for HttpFilter {
    fn from(raw: Value) -> Self {
        Self::Raw(raw)
    }
}
